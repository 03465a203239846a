"""Passes by name: a table of places, so that naming and listing passes imports none.

Third parties add passes through the entry-point group ``snn_optimizer.passes``; the entry's name is
the pass's name, its object a frozen dataclass derived from ``Pass``. Names and options are kebab-case
in pipeline text and snake_case in Python; both are accepted everywhere.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import MISSING, Field, fields
from difflib import get_close_matches
from functools import cache
from importlib import metadata
from numbers import Integral, Real
from types import MappingProxyType, NoneType, UnionType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Union, cast, get_args, get_origin, get_type_hints

from snn_optimizer.errors import InputError, PassOptionError, UnknownPassError, did_you_mean

if TYPE_CHECKING:
    from snn_optimizer.passes.base import Pass

__all__ = [
    "ALIASES",
    "BUILTIN",
    "DISTRIBUTION",
    "GROUP",
    "Option",
    "changed_options",
    "create",
    "distribution_of",
    "load",
    "names",
    "options_of",
    "resolve",
]

GROUP: Final = "snn_optimizer.passes"

BUILTIN: Final[Mapping[str, str]] = MappingProxyType(
    {
        "canonicalize": "snn_optimizer.passes.cleanup.canonicalize:Canonicalize",
        "common-subexpressions": "snn_optimizer.passes.cleanup.common_subexpressions:CommonSubexpressions",
        "compress-units": "snn_optimizer.passes.weights.compress_units:CompressUnits",
        "constant-neuron-folding": "snn_optimizer.passes.structure.constant_neuron_folding:ConstantNeuronFolding",
        "dead-code": "snn_optimizer.passes.cleanup.dead_code:DeadCode",
        "dead-neuron-elimination": "snn_optimizer.passes.structure.dead_neuron_elimination:DeadNeuronElimination",
        "distribute-time": "snn_optimizer.passes.raising.distribute_time:DistributeTime",
        "event-driven": "snn_optimizer.passes.lowering.event_driven:EventDriven",
        "fold-constants": "snn_optimizer.passes.cleanup.fold_constants:FoldConstants",
        "layer-fusion": "snn_optimizer.passes.structure.layer_fusion:LayerFusion",
        "loop-to-scan": "snn_optimizer.passes.raising.loop_to_scan:LoopToScan",
        "map-custom-ops": "snn_optimizer.passes.raising.map_custom_ops:MapCustomOps",
        "prune": "snn_optimizer.passes.weights.prune:Prune",
        "quantize-weights": "snn_optimizer.passes.weights.quantize_weights:QuantizeWeights",
        "recognize-neurons": "snn_optimizer.passes.raising.recognize_neurons:RecognizeNeurons",
        "redundancy-elimination": "snn_optimizer.passes.structure.redundancy_elimination:RedundancyElimination",
        "redundant-connection-removal": (
            "snn_optimizer.passes.structure.redundant_connection_removal:RedundantConnectionRemoval"
        ),
        "reroll": "snn_optimizer.passes.raising.reroll:Reroll",
        "share-initializers": "snn_optimizer.passes.cleanup.share_initializers:ShareInitializers",
        "snap-to-grid": "snn_optimizer.passes.weights.snap_to_grid:SnapToGrid",
        "specialize-neurons": "snn_optimizer.passes.lowering.specialize_neurons:SpecializeNeurons",
    }
)

ALIASES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "dead": "dead-neuron-elimination",
        "eliminate-dead": "dead-neuron-elimination",
        "eliminate-redundant": "redundancy-elimination",
        "fuse": "layer-fusion",
        "fusion": "layer-fusion",
        "merge": "redundancy-elimination",
        "redundant": "redundancy-elimination",
        "remove-redundant-connections": "redundant-connection-removal",
        "weight-pruning": "prune",
    }
)

DISTRIBUTION: Final = "snn-optimizer"
_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


class Option(NamedTuple):
    """An option of a pass, for listings.

    Attributes
    ----------
    name : str
        In kebab-case.
    type_text : str
        What may be written, as in ``float`` or ``global | local``.
    default : object
        ``dataclasses.MISSING`` when the option has to be given.
    doc : str
        From the class's numpydoc section ``Parameters`` or ``Attributes``, or the field's
        metadata ``doc``; empty when there is neither.
    """

    name: str
    type_text: str
    default: object
    doc: str


def names() -> tuple[str, ...]:
    """Return the names of all passes, sorted; nothing is imported.

    Raises
    ------
    InputError
        If an installed distribution registers a name that is taken.
    """
    return tuple(sorted(_table()))


def resolve(name: str) -> str:
    """Return the canonical name for a name or alias; nothing is imported.

    Raises
    ------
    UnknownPassError
        With the nearest names.
    """
    written = _kebab(name)
    canonical = ALIASES.get(written, written)
    if canonical in _table():
        return canonical
    near = get_close_matches(written.lower(), [*_table(), *ALIASES], n=3)
    raise UnknownPassError(name, tuple(dict.fromkeys(ALIASES.get(n, n) for n in near)))


def load(name: str) -> type[Pass]:
    """Import the class of a pass.

    Parameters
    ----------
    name : str
        A name or an alias.

    Raises
    ------
    UnknownPassError
    InputError
        If a third party's pass cannot be imported, or is not a pass of this name.
    """
    canonical = resolve(name)
    point = _table()[canonical]
    if canonical in BUILTIN:
        return cast("type[Pass]", point.load())
    from snn_optimizer.passes.base import Pass  # noqa: PLC0415 -- listing must not import the graph library

    blame = f"pass '{canonical}' of the distribution '{_owner(point)}' ({point.value})"
    try:
        found = point.load()
    except Exception as error:
        raise InputError(f"{blame} cannot be imported: {type(error).__name__}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Pass)) or inspect.isabstract(found):
        raise InputError(f"{blame} is not a class derived from Pass that implements run()")
    if getattr(found, "name", None) != canonical:
        raise InputError(f"{blame} calls itself '{getattr(found, 'name', '')}'; the two names must agree")
    return found


def distribution_of(name: str) -> str:
    """Return which distribution provides a pass; nothing is imported."""
    return _owner(_table()[resolve(name)])


def create(name: str, options: Mapping[str, object] | None = None) -> Pass:
    """Create a pass with the given options, converted to the types of its fields.

    Parameters
    ----------
    name : str
        A name or an alias.
    options : mapping, optional
        Values by option name. A whole number is accepted where a float is asked for, one value
        where a list is, and the word ``none`` where None is.

    Raises
    ------
    UnknownPassError
    PassOptionError
        Naming pass, option, value and the known options.
    """
    cls = load(name)
    known = _option_fields(cls)
    hints = get_type_hints(cls)
    chosen: dict[str, object] = {}
    for written, value in (options or {}).items():
        field = known.get(_kebab(written))
        if field is None:
            near = did_you_mean(_kebab(written), known)
            raise PassOptionError(
                f"pass '{cls.name}' has no option '{written}' (given {_shown(value)}); {_listing(known)}{near}"
            )
        if field.name in chosen:
            raise PassOptionError(f"pass '{cls.name}': option '{_kebab(written)}' is given twice")
        hint = hints[field.name]
        try:
            chosen[field.name] = _converted(hint, value)
        except (ValueError, OverflowError):
            near = did_you_mean(value, _choices(hint))
            raise PassOptionError(
                f"pass '{cls.name}': option '{_kebab(written)}' takes {_type_text(hint)}, "
                f"not {_shown(value)}; {_listing(known)}{near}"
            ) from None
    for option, field in known.items():
        if field.name not in chosen and _default(field) is MISSING:
            raise PassOptionError(f"pass '{cls.name}' needs the option '{option}'; {_listing(known)}")
    try:
        return cast("Callable[..., Pass]", cls)(**chosen)
    except InputError:
        raise
    except ValueError as error:
        raise PassOptionError(f"pass '{cls.name}': {error}") from error


def options_of(name: str) -> list[Option]:
    """Return the options of a pass in the order of its fields.

    Raises
    ------
    UnknownPassError
    """
    cls = load(name)
    hints = get_type_hints(cls)
    documented = _documented_fields(cls)
    return [
        Option(
            option,
            _type_text(hints[field.name]),
            _default(field),
            str(field.metadata.get("doc", documented.get(field.name, ""))),
        )
        for option, field in _option_fields(cls).items()
    ]


def changed_options(one: Pass) -> tuple[tuple[str, Any], ...]:
    """Return the options of a pass that are not at their default, as pipeline text holds them.

    ``create(one.name, dict(changed_options(one))) == one``.
    """
    found: list[tuple[str, Any]] = []
    for option, field in _option_fields(type(one)).items():
        value = getattr(one, field.name)
        if value != _default(field):
            found.append((option, "none" if value is None else value))
    return tuple(found)


@cache
def _table() -> Mapping[str, metadata.EntryPoint]:
    """Return where each pass is; reads the metadata of installed distributions once."""
    table = {name: metadata.EntryPoint(name, place, GROUP) for name, place in BUILTIN.items()}
    for point in sorted(metadata.entry_points(group=GROUP), key=lambda p: (p.name, _owner(p))):
        name = _kebab(point.name)
        if not _NAME.fullmatch(name):
            raise InputError(
                f"the distribution '{_owner(point)}' registers a pass '{point.name}'; write its name like 'my-pass'"
            )
        other = table.get(ALIASES.get(name, name))
        if other is not None:
            raise InputError(
                f"the distributions '{_owner(other)}' and '{_owner(point)}' both provide a pass '{name}'; "
                "uninstall one or rename its entry point"
            )
        table[name] = point
    return table


def _owner(point: metadata.EntryPoint) -> str:
    if point.dist is not None:
        return point.dist.name
    return DISTRIBUTION if BUILTIN.get(point.name) == point.value else "unknown"


def _kebab(name: str) -> str:
    return name.replace("_", "-")


def _option_fields(cls: type[Pass]) -> dict[str, Field[Any]]:
    return {_kebab(field.name): field for field in fields(cls) if field.init}


def _default(field: Field[Any]) -> object:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default


def _converted(hint: Any, value: object) -> object:
    """Return ``value`` as ``hint`` asks for; ValueError when it is of another type."""
    origin = get_origin(hint)
    if origin in {Union, UnionType}:
        return _first_converted(sorted(get_args(hint), key=_precedence), value)
    if origin is Literal:
        for choice in get_args(hint):
            if choice == value and type(choice) is type(value):
                return choice
    elif origin is tuple:
        return _converted_tuple(get_args(hint), value)
    elif hint is NoneType:
        if value is None or value == "none":
            return None
    elif hint is bool or isinstance(value, bool):
        if hint is bool and isinstance(value, bool):
            return value
    elif hint is int and isinstance(value, Integral):
        return int(value)
    elif hint is float and isinstance(value, Real) and not math.isnan(value):
        return float(value)
    elif hint is str and isinstance(value, str):
        return str(value)
    raise ValueError(value)


def _first_converted(hints: Iterable[Any], value: object) -> object:
    for hint in hints:
        try:
            return _converted(hint, value)
        except ValueError:
            continue
    raise ValueError(value)


def _precedence(hint: Any) -> int:
    """Order the members of a union: a literal ``none`` before None, None before any text."""
    return 0 if get_origin(hint) is Literal else 1 if hint is NoneType else 2


def _converted_tuple(hints: tuple[Any, ...], value: object) -> tuple[object, ...]:
    values = tuple(value) if isinstance(value, tuple | list) else (value,)
    if len(hints) == 2 and hints[1] is Ellipsis:
        return tuple(_converted(hints[0], v) for v in values)
    return tuple(_converted(h, v) for h, v in zip(hints, values, strict=True))


def _type_text(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in {Union, UnionType}:
        return " | ".join(map(_type_text, arguments))
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin is tuple:
        return ",".join("..." if a is Ellipsis else _type_text(a) for a in arguments)
    return "none" if hint is NoneType else str(getattr(hint, "__name__", hint))


def _choices(hint: Any) -> list[str]:
    """Return the words a hint allows, however deep they are."""
    if get_origin(hint) is Literal:
        return [str(choice) for choice in get_args(hint)]
    return [choice for argument in get_args(hint) for choice in _choices(argument)]


def _listing(known: Collection[str]) -> str:
    return f"its options: {', '.join(known)}" if known else "it has no options"


def _shown(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    text = ",".join(map(str, value)) if isinstance(value, tuple | list) else text
    return f"'{text if len(text) <= 60 else text[:57] + '...'}'"


def _documented_fields(cls: type) -> dict[str, str]:
    """Read the numpydoc sections of a class that describe its fields."""
    found: dict[str, str] = {}
    described: list[str] = []
    inside = False
    lines = (inspect.getdoc(cls) or "").splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if following and not following.strip("-"):
            inside, described = line in {"Parameters", "Attributes"}, []
        elif inside and line.strip("-") and not line[0].isspace():
            described = [name.strip() for name in line.split(" :")[0].split(",")]
        elif inside and line.strip("-"):
            found |= {name: f"{found.get(name, '')} {line.strip()}".strip() for name in described}
    return found
