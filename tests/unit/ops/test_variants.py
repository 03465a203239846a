from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from snn_optimizer.ops import DOMAIN, FORMS, NeuronVariant, is_neuron


def every_variant() -> list[NeuronVariant]:
    variants = [
        NeuronVariant(operator, form, reset, delay, fire, limit, arithmetic)
        for form, operator, reset, delay, fire, limit, arithmetic in itertools.product(
            FORMS,
            ("LIF", "IF", "CubaLIF"),
            ("subtract", "to-value", "none"),
            (0, 1),
            ("gt", "ge"),
            (1, 2, 10, 0),
            ("decay", "relax"),
        )
        if not (operator == "IF" and arithmetic == "relax")
    ]
    return variants + [
        NeuronVariant("LI", form, arithmetic=arithmetic)
        for form, arithmetic in itertools.product(FORMS, ("decay", "relax"))
    ]


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        (NeuronVariant("LIF"), "LIF__subtract_gt"),
        (NeuronVariant("LIF", "cell", "to-value", 1, "ge"), "LIFCell__to_value_ge_delayed"),
        (NeuronVariant("CubaLIF", reset="none", max_spikes=4), "CubaLIF__none_gt_m4"),
        (NeuronVariant("LIF", arithmetic="relax"), "LIF__subtract_gt_relax"),
        (NeuronVariant("IF", max_spikes=0), "IF__subtract_gt_m0"),
        (NeuronVariant("LIF", "sequence", "none", 1, "ge", 12, "relax"), "LIF__none_ge_delayed_m12_relax"),
        (NeuronVariant("LI"), "LI__decay"),
        (NeuronVariant("LI", "cell", arithmetic="relax"), "LICell__relax"),
    ],
)
def test_names(variant: NeuronVariant, name: str) -> None:
    assert variant.op_type == name


def test_names_are_unique_and_parse_to_their_variant() -> None:
    variants = every_variant()
    assert len({variant.op_type for variant in variants}) == len(variants) == 3 * 242
    for variant in variants:
        assert NeuronVariant.parse(variant.op_type, variant.attributes()) == variant
        assert is_neuron(DOMAIN, variant.op_type)


def test_attributes_in_order() -> None:
    variant = NeuronVariant("LIF", "cell", "to-value", 1, "ge", 3, "relax")
    assert list(variant.attributes().items()) == [
        ("reset", "to-value"),
        ("reset_delay", 1),
        ("fire", "ge"),
        ("max_spikes", 3),
        ("arithmetic", "relax"),
    ]
    assert NeuronVariant("LI").attributes() == {"arithmetic": "decay"}


def test_attributes_of_a_node_parse() -> None:
    variant = NeuronVariant("CubaLIF", reset="to-value", max_spikes=0)
    node: onnx.NodeProto = helper.make_node(variant.op_type, [], [], domain=DOMAIN, **variant.attributes())
    written = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    assert isinstance(written["reset"], bytes)
    assert NeuronVariant.parse(node.op_type, written) == variant


def test_numpy_integers_parse() -> None:
    variant = NeuronVariant("LIF", max_spikes=4)
    attributes = {**variant.attributes(), "max_spikes": np.int64(4)}
    assert NeuronVariant.parse(variant.op_type, attributes) == variant


def test_forms_of_one_neuron() -> None:
    variant = NeuronVariant("CubaLIF", reset="none", max_spikes=2)
    cell = variant.as_form("cell")
    assert cell == NeuronVariant("CubaLIF", "cell", "none", max_spikes=2)
    assert cell.as_form("sequence") == variant
    assert variant.inputs == ("X", "i0", "v0", "alpha", "beta", "gain", "v_threshold", "v_reset")
    assert cell.outputs == ("s", "i_next", "v_next")
    assert cell.states == ((1, 1), (2, 2))


def test_only_the_leaky_integrator_does_not_spike() -> None:
    spiking = {operator: NeuronVariant(operator).spiking for operator in ("LIF", "IF", "LI", "CubaLIF")}
    assert spiking == {"LIF": True, "IF": True, "LI": False, "CubaLIF": True}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"operator": "ALIF"}, "operator must be .* not 'ALIF'"),
        ({"operator": "LIF", "form": "step"}, "form must be 'sequence' or 'cell' or 'flat', not 'step'"),
        (
            {"operator": "LIF", "reset": "hard"},
            "reset must be 'subtract' or 'to-value' or 'none', not 'hard'",
        ),
        ({"operator": "LIF", "reset": None}, "reset must be .* not None"),
        ({"operator": "LIF", "reset_delay": 2}, "reset_delay must be 0 or 1, not 2"),
        ({"operator": "LIF", "reset_delay": True}, "reset_delay must be 0 or 1, not True"),
        ({"operator": "LIF", "fire": ">"}, "fire must be 'gt' or 'ge', not '>'"),
        ({"operator": "LIF", "max_spikes": -1}, "max_spikes must be an integer of at least 0, not -1"),
        ({"operator": "LIF", "max_spikes": 2**63}, "max_spikes must be an integer"),
        ({"operator": "LIF", "max_spikes": 1.0}, "max_spikes must be an integer of at least 0, not 1.0"),
        ({"operator": "LIF", "max_spikes": True}, "max_spikes must be an integer of at least 0, not True"),
        ({"operator": "LIF", "arithmetic": "exact"}, "arithmetic must be 'decay' or 'relax', not 'exact'"),
        ({"operator": "IF", "arithmetic": "relax"}, "arithmetic must be 'decay', not 'relax'"),
        ({"operator": "LI", "reset": "none"}, "reset must be 'subtract' for LI, not 'none'"),
        ({"operator": "LI", "reset_delay": 1}, "reset_delay must be 0 for LI, not 1"),
        ({"operator": "LI", "max_spikes": True}, "max_spikes must be 1 for LI, not True"),
        ({"operator": "LI", "fire": "ge"}, "LI has no such attribute"),
    ],
)
def test_validation_names_field_and_allowed_values(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NeuronVariant(**fields)


@pytest.mark.parametrize(
    "name",
    [
        "LIF",
        "LIF__",
        "LIF__subtract",
        "LIF__to-value_gt",
        "LIF__subtract_gt_m1",
        "LIF__subtract_gt_m04",
        "LIF__subtract_gt_m99999999999999999999",
        "LIF__subtract_gt_m9999999999999999999",
        "LIF__subtract_gt_relax_delayed",
        "LIF__subtract_gt ",
        "LIF__subtract_gt\n",
        "IF__subtract_gt_relax",
        "LI__subtract_gt",
        "LI__gt",
        "lif__subtract_gt",
        "CubaLI__decay",
        "Gemm",
        "",
    ],
)
def test_foreign_names(name: str) -> None:
    assert not is_neuron(DOMAIN, name)
    with pytest.raises(ValueError, match=r"is not a neuron of ai\.snn"):
        NeuronVariant.parse(name, NeuronVariant("LIF").attributes())


@pytest.mark.parametrize("domain", ["", "ai.snn.preview", "snn", "AI.SNN"])
def test_foreign_domains(domain: str) -> None:
    assert not is_neuron(domain, "LIF__subtract_gt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reset": "none"}, "LIF__subtract_gt: attribute reset is 'none', the name says 'subtract'"),
        ({"reset": b"to-value"}, "attribute reset is 'to-value', the name says 'subtract'"),
        ({"reset": b"\xff"}, "attribute reset is"),
        ({"reset_delay": 1}, "attribute reset_delay is 1, the name says 0"),
        ({"reset_delay": False}, "attribute reset_delay is False, the name says 0"),
        ({"fire": "ge"}, "attribute fire is 'ge', the name says 'gt'"),
        ({"max_spikes": 0}, "attribute max_spikes is 0, the name says 1"),
        ({"max_spikes": 1.0}, "attribute max_spikes is 1.0, the name says 1"),
        ({"arithmetic": "relax"}, "attribute arithmetic is 'relax', the name says 'decay'"),
        ({"refractory": 2}, "attribute refractory is unknown, known are reset, reset_delay, fire, "),
    ],
)
def test_attributes_that_differ_from_the_name(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NeuronVariant.parse("LIF__subtract_gt", {**NeuronVariant("LIF").attributes(), **change})


@pytest.mark.parametrize("missing", ["reset", "reset_delay", "fire", "max_spikes", "arithmetic"])
def test_missing_attributes(missing: str) -> None:
    attributes = NeuronVariant("LIF").attributes()
    del attributes[missing]
    with pytest.raises(ValueError, match=f"attribute {missing} is missing"):
        NeuronVariant.parse("LIF__subtract_gt", attributes)
