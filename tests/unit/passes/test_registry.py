"""Passes by name: aliases, options, and passes of other distributions."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import types
from dataclasses import MISSING, dataclass, field
from importlib import metadata
from importlib.util import find_spec
from typing import ClassVar, Literal, Optional

import numpy as np
import pytest

from snn_optimizer.errors import InputError, PassOptionError, UnknownPassError
from snn_optimizer.passes import registry
from snn_optimizer.passes.base import Exactness, Outcome, Pass
from snn_optimizer.pipeline.spec import PassSpec, Pipeline, Size, parse

WRITTEN = [name for name, place in registry.BUILTIN.items() if find_spec(place.partition(":")[0]) is not None]


@dataclass(frozen=True, slots=True)
class Sample(Pass):
    """Do nothing, with an option of every type.

    Parameters
    ----------
    amount : float
        How much,
        as a share.
    rounds, max_growth : int
        Counts.

    Notes
    -----
    rounds : int
        Not an option.
    """

    name: ClassVar[str] = "sample"
    exactness: ClassVar[Exactness] = Exactness.BITWISE

    amount: float = 0.5
    rounds: int = 3
    max_growth: int = 4096
    measured: bool = False
    scope: Literal["global", "local"] = "global"
    level: Literal[1, 2] = 1
    pattern: str = ""
    layers: tuple[str, ...] = field(default=(), metadata={"doc": "Which layers."})
    window: tuple[int, float] = (1, 1.0)
    limit: int | None = 7
    target: Optional[float] = None  # noqa: UP045 -- both spellings occur
    step: int | float = 1
    mode: Literal["none", "fast"] | None = None
    label: str | None = "x"
    tags: tuple[str, ...] = field(default_factory=lambda: ("a",))
    fixed: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.amount <= 1:
            raise ValueError(f"amount is {self.amount:g}; it must be between 0 and 1")
        if self.rounds < 0:
            raise PassOptionError("sample: rounds is negative")

    def run(self, graph, context) -> Outcome:
        return Outcome()


@dataclass(frozen=True, slots=True)
class Demanding(Pass):
    """Do nothing with an option that has to be given."""

    name: ClassVar[str] = "demanding"
    exactness: ClassVar[Exactness] = Exactness.BITWISE

    budget: float

    def run(self, graph, context) -> Outcome:
        return Outcome()


class Unfinished(Pass):
    name = "sample"


@pytest.fixture(autouse=True)
def _fresh_table():
    registry._table.cache_clear()
    yield
    registry._table.cache_clear()


@pytest.fixture
def install(monkeypatch):
    """Return a function that installs entry points: name, value, distribution."""

    def entry_points(*points):
        module = types.ModuleType("plugin_passes")
        module.Sample, module.Demanding, module.Unfinished, module.number = Sample, Demanding, Unfinished, 3
        monkeypatch.setitem(sys.modules, "plugin_passes", module)
        found = [
            metadata.EntryPoint(name, value, registry.GROUP)._for(types.SimpleNamespace(name=owner))
            for name, value, owner in points
        ]

        def fake(*, group):
            return [point for point in found if point.group == group]

        monkeypatch.setattr(metadata, "entry_points", fake)
        registry._table.cache_clear()

    return entry_points


@pytest.fixture
def sample(install):
    install(("sample", "plugin_passes:Sample", "plugin"), ("demanding", "plugin_passes:Demanding", "plugin"))


# -- names ----------------------------------------------------------------------------------


def test_names_are_the_builtin_passes_sorted(install):
    install()
    assert registry.names() == tuple(sorted(registry.BUILTIN))
    assert list(registry.BUILTIN) == sorted(registry.BUILTIN)
    assert list(registry.ALIASES) == sorted(registry.ALIASES)


@pytest.mark.parametrize("name", list(registry.BUILTIN))
def test_the_three_spellings_of_a_name_agree(name):
    module, _, cls = registry.BUILTIN[name].partition(":")
    assert module.rpartition(".")[2] == name.replace("-", "_")
    assert cls == "".join(word.capitalize() for word in name.split("-"))
    assert re.fullmatch(
        r"snn_optimizer\.passes\.(cleanup|lowering|raising|structure|weights)", module.rpartition(".")[0]
    )


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("eliminate_dead", "dead-neuron-elimination"),
        ("eliminate-dead", "dead-neuron-elimination"),
        ("dead_neuron_elimination", "dead-neuron-elimination"),
        ("dead", "dead-neuron-elimination"),
        ("merge", "redundancy-elimination"),
        ("redundancy_elimination", "redundancy-elimination"),
        ("eliminate_redundant", "redundancy-elimination"),
        ("redundant", "redundancy-elimination"),
        ("fuse", "layer-fusion"),
        ("layer_fusion", "layer-fusion"),
        ("fusion", "layer-fusion"),
        ("prune", "prune"),
        ("weight-pruning", "prune"),
        ("weight_pruning", "prune"),
        ("constant_neuron_folding", "constant-neuron-folding"),
        ("redundant_connection_removal", "redundant-connection-removal"),
        ("remove_redundant_connections", "redundant-connection-removal"),
        *((name, name) for name in registry.BUILTIN),
        *((name.replace("-", "_"), name) for name in registry.BUILTIN),
    ],
)
def test_names_and_aliases_resolve(written, canonical):
    assert registry.resolve(written) == canonical


def test_aliases_hide_no_pass_and_lead_to_passes():
    assert not set(registry.ALIASES) & set(registry.BUILTIN)
    assert set(registry.ALIASES.values()) <= set(registry.BUILTIN)


@pytest.mark.parametrize(
    ("written", "suggestion"),
    [
        ("layer-fuson", "layer-fusion"),
        ("layer_fuson", "layer-fusion"),
        ("Prune", "prune"),
        ("eliminate-ded", "dead-neuron-elimination"),
        ("canonicalise", "canonicalize"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(written, suggestion):
    for function in (registry.resolve, registry.load, registry.create, registry.options_of):
        with pytest.raises(UnknownPassError) as caught:
            function(written)
        assert caught.value.name == written
        assert caught.value.suggestions[0] == suggestion
        assert len(set(caught.value.suggestions)) == len(caught.value.suggestions)


def test_a_name_like_no_other_suggests_nothing():
    with pytest.raises(UnknownPassError, match="'snnopt passes' lists them") as caught:
        registry.resolve("zzz")
    assert caught.value.suggestions == ()


def test_naming_and_resolving_import_no_pass():
    program = (
        "import sys; from snn_optimizer.passes import registry as r; r.names(); r.resolve('eliminate_dead');"
        "heavy = ('onnx', 'numpy', 'onnxruntime', 'onnx_graphsurgeon');"
        "print([m for m in sys.modules if m.partition('.')[0] in heavy"
        " or m.startswith('snn_optimizer.passes.') and m != 'snn_optimizer.passes.registry'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- loading --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WRITTEN)
def test_builtin_passes_load_under_their_name(name):
    cls = registry.load(name)
    assert issubclass(cls, Pass)
    assert cls.name == name
    assert registry.load(name.replace("-", "_")) is cls
    assert {registry.resolve(alias) for alias in cls.aliases} <= {name}
    assert cls.describe()


@pytest.mark.parametrize("name", WRITTEN)
def test_builtin_passes_are_created_with_their_defaults(name):
    one = registry.create(name)
    assert type(one) is registry.load(name)
    assert registry.changed_options(one) == ()
    for option in registry.options_of(name):
        assert "_" not in option.name
        assert option.default is not MISSING
        assert registry.create(name, {option.name: option.default}) == one


def test_options_of_builtin_passes():
    one = registry.create("eliminate_dead", {"measured": True, "threshold": 0})
    assert (one.measured, one.threshold) == (True, 0.0)
    assert type(one.threshold) is float
    assert [o[:3] for o in registry.options_of("dead")] == [
        ("threshold", "float", 0.001),
        ("measured", "bool", False),
        ("spare", "bool", False),
    ]


# -- passes of other distributions ----------------------------------------------------------


@pytest.mark.usefixtures("sample")
def test_passes_of_other_distributions_are_listed_and_loaded():
    assert "sample" in registry.names()
    assert list(registry.names()) == sorted(registry.names())
    assert registry.load("sample") is Sample
    assert registry.create("sample", {"rounds": 4}) == Sample(rounds=4)


def test_a_name_may_be_registered_in_snake_case(install, monkeypatch):
    install(("my_sample", "plugin_passes:Sample", "plugin"))
    monkeypatch.setattr(Sample, "name", "my-sample")
    assert "my-sample" in registry.names()
    assert registry.load("my_sample") is registry.load("my-sample") is Sample


@pytest.mark.parametrize(
    ("points", "owners"),
    [
        (
            [("sample", "plugin_passes:Sample", "one"), ("sample", "plugin_passes:Demanding", "two")],
            ("one", "two"),
        ),
        ([("a-b", "plugin_passes:Sample", "two"), ("a_b", "plugin_passes:Demanding", "one")], ("two", "one")),
        ([("prune", "plugin_passes:Sample", "other")], ("snn-optimizer", "other")),
        ([("layer_fusion", "plugin_passes:Sample", "other")], ("snn-optimizer", "other")),
        ([("fuse", "plugin_passes:Sample", "other")], ("snn-optimizer", "other")),
    ],
)
def test_a_name_that_is_taken_names_both_distributions(install, points, owners):
    install(*points)
    for function in (registry.names, lambda: registry.load("prune"), lambda: registry.resolve("sample")):
        with pytest.raises(InputError, match=f"'{owners[0]}' and '{owners[1]}' both provide") as caught:
            function()
        assert "\n" not in str(caught.value)


def test_a_name_that_pipeline_text_cannot_hold_is_refused(install):
    install(("My Pass", "plugin_passes:Sample", "other"))
    with pytest.raises(InputError, match="the distribution 'other' registers a pass 'My Pass'"):
        registry.names()


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("no_such_module:Sample", "cannot be imported: ModuleNotFoundError"),
        ("plugin_passes:NoSuchClass", "cannot be imported: AttributeError"),
        ("plugin_passes:number", "is not a class derived from Pass that implements run()"),
        ("plugin_passes:Unfinished", "is not a class derived from Pass that implements run()"),
        ("plugin_passes:Demanding", "calls itself 'demanding'; the two names must agree"),
        ("collections:OrderedDict", "is not a class derived from Pass"),
    ],
)
def test_a_broken_pass_of_another_distribution_is_blamed_on_it(install, place, message):
    install(("sample", place, "broken-plugin"))
    with pytest.raises(InputError) as caught:
        registry.load("sample")
    assert str(caught.value).startswith(f"pass 'sample' of the distribution 'broken-plugin' ({place}) ")
    assert message in str(caught.value)


# -- options --------------------------------------------------------------------------------


@pytest.mark.usefixtures("sample")
@pytest.mark.parametrize(
    ("option", "value", "stored"),
    [
        ("amount", 1, 1.0),
        ("amount", np.float32(0.25), 0.25),
        ("rounds", 5, 5),
        ("rounds", np.int64(5), 5),
        ("max-growth", Size(4096), 4096),
        ("max_growth", 8, 8),
        ("measured", True, True),
        ("scope", "local", "local"),
        ("level", 2, 2),
        ("pattern", "2:4", "2:4"),
        ("layers", ("a", "b"), ("a", "b")),
        ("layers", ["a"], ("a",)),
        ("layers", "a", ("a",)),
        ("window", (2, 3), (2, 3.0)),
        ("limit", 3, 3),
        ("limit", None, None),
        ("limit", "none", None),
        ("target", 2, 2.0),
        ("target", "none", None),
        ("step", 2, 2),
        ("step", 2.5, 2.5),
        ("mode", "none", "none"),
        ("mode", "fast", "fast"),
        ("mode", None, None),
        ("label", "none", None),
        ("label", "text", "text"),
    ],
)
def test_values_are_converted_to_the_field(option, value, stored):
    found = getattr(registry.create("sample", {option: value}), option.replace("-", "_"))
    assert found == stored
    assert type(found) is type(stored)


@pytest.mark.usefixtures("sample")
@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("amount", "abc", "option 'amount' takes float, not 'abc'"),
        ("amount", True, "option 'amount' takes float, not 'true'"),
        ("amount", float("nan"), "option 'amount' takes float, not 'nan'"),
        ("amount", 10**400, "option 'amount' takes float, not '10000"),
        ("amount", (0.1, 0.2), "option 'amount' takes float, not '0.1,0.2'"),
        ("rounds", 1.5, "option 'rounds' takes int, not '1.5'"),
        ("rounds", False, "option 'rounds' takes int, not 'false'"),
        ("rounds", "none", "option 'rounds' takes int, not 'none'"),
        ("max_growth", "4k", "option 'max-growth' takes int, not '4k'"),
        ("measured", 1, "option 'measured' takes bool, not '1'"),
        ("measured", "yes", "option 'measured' takes bool, not 'yes'"),
        ("scope", "locale", "option 'scope' takes global | local, not 'locale'; its options: "),
        ("scope", True, "option 'scope' takes global | local, not 'true'"),
        ("level", True, "option 'level' takes 1 | 2, not 'true'"),
        ("level", 3, "option 'level' takes 1 | 2, not '3'"),
        ("pattern", 2, "option 'pattern' takes str, not '2'"),
        ("layers", (1, "a"), "option 'layers' takes str,..., not '1,a'"),
        ("window", (1, 2, 3), "option 'window' takes int,float, not '1,2,3'"),
        ("window", 1, "option 'window' takes int,float, not '1'"),
        ("limit", "all", "option 'limit' takes int | none, not 'all'"),
        ("mode", "fats", "option 'mode' takes none | fast | none, not 'fats'; its options: "),
        ("pattern", 10**90, "option 'pattern' takes str, not '1" + "0" * 56 + "...'"),
    ],
)
def test_a_value_of_another_type_is_refused(option, value, message):
    with pytest.raises(PassOptionError) as caught:
        registry.create("sample", {option: value})
    assert str(caught.value).startswith(f"pass 'sample': {message}")
    assert "; its options: amount, rounds, max-growth, measured, scope, " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("sample")
@pytest.mark.parametrize(("option", "value", "near"), [("scope", "locale", "local"), ("mode", "fats", "fast")])
def test_a_word_that_is_no_choice_suggests_the_nearest(option, value, near):
    with pytest.raises(PassOptionError, match=f"; did you mean '{near}'[?]$"):
        registry.create("sample", {option: value})


@pytest.mark.usefixtures("sample")
def test_an_unknown_option_names_the_nearest_and_all():
    with pytest.raises(PassOptionError) as caught:
        registry.create("sample", {"max_grwth": 3})
    assert str(caught.value).startswith("pass 'sample' has no option 'max_grwth' (given '3'); its options: amount, ")
    assert str(caught.value).endswith("; did you mean 'max-growth'?")
    with pytest.raises(PassOptionError, match="pass 'sample' has no option 'fixed'"):
        registry.create("sample", {"fixed": 1})
    with pytest.raises(PassOptionError, match=r"has no option 'x' \(given 'true'\); it has no options"):
        registry.create("constant-neuron-folding", {"x": True})


@pytest.mark.usefixtures("sample")
def test_an_option_in_both_spellings_is_given_twice():
    with pytest.raises(PassOptionError, match="option 'max-growth' is given twice"):
        registry.create("sample", {"max-growth": 1, "max_growth": 1})


@pytest.mark.usefixtures("sample")
def test_an_option_without_default_has_to_be_given():
    with pytest.raises(PassOptionError, match="pass 'demanding' needs the option 'budget'; its options: budget"):
        registry.create("demanding")
    assert registry.create("demanding", {"budget": 1}) == Demanding(1.0)
    assert registry.options_of("demanding") == [("budget", "float", MISSING, "")]
    assert registry.changed_options(Demanding(1.0)) == (("budget", 1.0),)


@pytest.mark.usefixtures("sample")
def test_what_the_pass_itself_refuses_is_an_option_error():
    with pytest.raises(PassOptionError, match="pass 'sample': amount is 2; it must be between 0 and 1"):
        registry.create("sample", {"amount": 2})
    with pytest.raises(PassOptionError, match=r"^sample: rounds is negative$"):
        registry.create("sample", {"rounds": -1})


@pytest.mark.usefixtures("sample")
def test_options_are_listed_with_type_default_and_documentation():
    assert registry.options_of("sample") == [
        ("amount", "float", 0.5, "How much, as a share."),
        ("rounds", "int", 3, "Counts."),
        ("max-growth", "int", 4096, "Counts."),
        ("measured", "bool", False, ""),
        ("scope", "global | local", "global", ""),
        ("level", "1 | 2", 1, ""),
        ("pattern", "str", "", ""),
        ("layers", "str,...", (), "Which layers."),
        ("window", "int,float", (1, 1.0), ""),
        ("limit", "int | none", 7, ""),
        ("target", "float | none", None, ""),
        ("step", "int | float", 1, ""),
        ("mode", "none | fast | none", None, ""),
        ("label", "str | none", "x", ""),
        ("tags", "str,...", ("a",), ""),
    ]
    assert inspect.getdoc(Sample).startswith("Do nothing")


@pytest.mark.usefixtures("sample")
@pytest.mark.parametrize(
    ("one", "text"),
    [
        (Sample(), "sample"),
        (Sample(measured=True, amount=0.25), "sample{amount=0.25 measured}"),
        (Sample(limit=None, pattern="2:4", layers=("a", "b")), 'sample{pattern="2:4" layers=a,b limit=none}'),
        (Sample(layers=("a",), max_growth=8192), "sample{max-growth=8192 layers=a}"),
    ],
)
def test_a_pass_prints_as_text_that_creates_it(one, text):
    spec = PassSpec(one.name, registry.changed_options(one))
    assert str(spec) == text
    (again,) = parse(str(Pipeline((spec,)))).elements
    assert registry.create(again.name, dict(again.options)) == one
