"""Presets: what they expand to, and that their text stays true to the passes."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from snn_optimizer.errors import PipelineSpecError, UnknownPassError
from snn_optimizer.passes import registry
from snn_optimizer.pipeline.presets import PRESETS, expand
from snn_optimizer.pipeline.spec import GroupSpec, PassSpec, Pipeline, PresetSpec, parse

CLEANUP = "canonicalize,fold-constants,common-subexpressions,share-initializers,dead-code"


def leaves(elements):
    for element in elements:
        if isinstance(element, GroupSpec):
            yield from leaves(element.body)
        else:
            yield element


def groups(elements):
    for element in elements:
        if isinstance(element, GroupSpec):
            yield element
            yield from groups(element.body)


def test_the_presets_there_are():
    assert list(PRESETS) == ["O0", "raise", "hygiene", "O1", "O2", "O3", "Oz", "classic"]
    with pytest.raises(TypeError):
        PRESETS["O1"] = ""


def test_nothing_expands_to_nothing():
    assert expand(Pipeline()) == Pipeline()
    assert expand(parse("@O0")) == Pipeline()


def test_a_pipeline_without_presets_is_kept():
    pipeline = parse("a{x=1},fixpoint{max=2}(b,c),d")
    assert expand(pipeline) == pipeline


def test_presets_expand_in_place_and_recursively():
    assert str(expand(parse("@hygiene"))) == CLEANUP
    first = str(expand(parse("@O1")))
    assert first == f"{expand(parse('@raise'))},{CLEANUP},specialize-neurons"
    assert str(expand(parse("a,@O2,b"))) == (
        f"a,{first},"
        "fixpoint{max=8}(layer-fusion,redundant-connection-removal,dead-neuron-elimination,"
        f"constant-neuron-folding,redundancy-elimination),{CLEANUP},b"
    )
    assert str(expand(parse("fixpoint{max=3}(@hygiene)"))) == f"fixpoint{{max=3}}({CLEANUP})"


def test_groups_of_which_nothing_remains_are_left_out():
    assert expand(parse("a,fixpoint(@O0,bodies(@O0)),b")) == parse("a,b")
    assert expand(parse("fixpoint(@O0,a)")) == parse("fixpoint(a)")


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_is_canonical_text_and_expands_to_passes(name):
    text = PRESETS[name]
    assert str(parse(text)) == text
    expanded = expand(Pipeline((PresetSpec(name),)))
    assert all(isinstance(leaf, PassSpec) for leaf in leaves(expanded.elements))
    assert expand(expanded) == expanded
    assert parse(str(expanded)) == expanded
    assert all(g.name == "fixpoint" and [key for key, _ in g.options] == ["max"] for g in groups(expanded.elements))


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_use_canonical_names_and_options_the_passes_have(name):
    for leaf in leaves(expand(Pipeline((PresetSpec(name),))).elements):
        assert registry.resolve(leaf.name) == leaf.name
        if find_spec(registry.BUILTIN[leaf.name].partition(":")[0]) is not None:
            assert registry.create(leaf.name, dict(leaf.options)).name == leaf.name


@pytest.mark.parametrize("name", ["O1", "O2", "O3", "Oz"])
def test_levels_contain_the_level_below(name):
    order = ["O0", "O1", "O2", "O3", "Oz"]
    below = str(expand(Pipeline((PresetSpec(order[order.index(name) - 1]),))))
    assert str(expand(Pipeline((PresetSpec(name),)))).startswith(below)


@pytest.mark.parametrize(
    ("written", "suggestions"),
    [("o2", "@O2"), ("OZ", "@Oz"), ("clasic", "@classic"), ("Classic", "@classic")],
)
def test_an_unknown_preset_suggests_the_nearest(written, suggestions):
    with pytest.raises(UnknownPassError) as caught:
        expand(parse(f"a,fixpoint(@{written})"))
    assert caught.value.name == f"@{written}"
    assert caught.value.suggestions[0] == suggestions
    assert f"did you mean '{suggestions}'?" in str(caught.value)


def test_an_unknown_preset_like_no_other_suggests_nothing():
    with pytest.raises(UnknownPassError) as caught:
        expand(parse("@smallest"))
    assert caught.value.suggestions == ()


@pytest.mark.parametrize(
    ("presets", "way"),
    [
        ({"a": "x,@a"}, "@a -> @a"),
        ({"a": "@b", "b": "f(y,@a)"}, "@a -> @b -> @a"),
        ({"a": "@b", "b": "@c", "c": "@b"}, "@b -> @c -> @b"),
    ],
)
def test_a_preset_that_contains_itself_is_an_error(presets, way):
    with pytest.raises(PipelineSpecError, match=f"contains itself: {way}\n"):
        expand(parse("@a"), presets=presets)


def test_a_preset_used_twice_contains_nothing_twice():
    assert str(expand(parse("@a,@a"), presets={"a": "@b,@b", "b": "x"})) == "x,x,x,x"


def test_an_error_in_the_text_of_a_preset_shows_that_text():
    with pytest.raises(PipelineSpecError) as caught:
        expand(parse("@broken"), presets={"broken": "a,,b"})
    assert (caught.value.text, caught.value.start) == ("a,,b", 2)
