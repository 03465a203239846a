"""Presets: pipelines with names, written as pipeline text.

``@raise`` finds the network in a framework's export, ``@hygiene`` removes what does nothing; ``@O1``
does both and keeps every output bit for bit; ``@O2`` keeps it up to rounding; ``@O3`` believes measured
spike rates; ``@Oz`` spends the caller's budget; ``@classic`` is the set of the classic interface.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Final

from snn_optimizer.errors import PipelineSpecError, UnknownPassError
from snn_optimizer.pipeline.spec import Element, GroupSpec, Pipeline, PresetSpec, parse

__all__ = ["PRESETS", "expand"]

PRESETS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "O0": "",
        "raise": (
            "map-custom-ops,loop-to-scan,reroll,canonicalize,fold-constants,common-subexpressions,"
            "share-initializers,reroll,recognize-neurons,distribute-time"
        ),
        "hygiene": "canonicalize,fold-constants,common-subexpressions,share-initializers,dead-code",
        "O1": "@raise,@hygiene,specialize-neurons",
        "O2": (
            "@O1,fixpoint{max=8}(layer-fusion,redundant-connection-removal,dead-neuron-elimination,"
            "constant-neuron-folding,redundancy-elimination),@hygiene"
        ),
        "O3": (
            "@O2,fixpoint{max=8}(dead-neuron-elimination{threshold=0 measured},layer-fusion{measured},"
            "redundancy-elimination,constant-neuron-folding,redundant-connection-removal),"
            "dead-neuron-elimination{measured},@O2"
        ),
        "Oz": "@O3,compress-units,@O2",
        "classic": "dead-neuron-elimination{measured},redundancy-elimination,layer-fusion{measured}",
    }
)


def expand(pipeline: Pipeline, *, presets: Mapping[str, str] = PRESETS) -> Pipeline:
    """Put the elements of presets in their place, at any depth.

    A group of which nothing remains is left out, because it would do nothing.

    Parameters
    ----------
    pipeline : Pipeline
    presets : mapping from name to pipeline text, optional

    Returns
    -------
    Pipeline
        Passes and groups of passes only.

    Raises
    ------
    UnknownPassError
        With the nearest presets.
    PipelineSpecError
        If a preset contains itself, or its text does not parse.
    """
    return Pipeline(_expanded(pipeline.elements, presets, ()))


def _expanded(
    elements: tuple[Element, ...], presets: Mapping[str, str], inside: tuple[str, ...]
) -> tuple[Element, ...]:
    found: list[Element] = []
    for element in elements:
        if isinstance(element, PresetSpec):
            found += _preset(element.name, presets, inside)
        elif isinstance(element, GroupSpec):
            if body := _expanded(element.body, presets, inside):
                found.append(GroupSpec(element.name, element.options, body))
        else:
            found.append(element)
    return tuple(found)


def _preset(name: str, presets: Mapping[str, str], inside: tuple[str, ...]) -> tuple[Element, ...]:
    if name not in presets:
        raise UnknownPassError(f"@{name}", _nearest(name, presets))
    if name in inside:
        way = " -> ".join(f"@{n}" for n in (*inside[inside.index(name) :], name))
        text = presets[inside[-1]]
        raise PipelineSpecError(f"the preset '@{name}' contains itself: {way}", text, 0, len(text))
    return _expanded(parse(presets[name]).elements, presets, (*inside, name))


def _nearest(name: str, presets: Mapping[str, str]) -> tuple[str, ...]:
    by_folded = {known.casefold(): known for known in presets}
    return tuple(f"@{by_folded[near]}" for near in get_close_matches(name.casefold(), by_folded, n=3))
