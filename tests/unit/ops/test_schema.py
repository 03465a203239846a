from __future__ import annotations

import pytest

from snn_optimizer.ops import DOMAIN, FORMS, OPERATORS, VERSION, NeuronVariant, schema


def test_the_domain_is_pinned() -> None:
    assert (DOMAIN, VERSION) == ("ai.snn", 1)


@pytest.mark.parametrize(
    ("operator", "form", "name", "inputs", "outputs"),
    [
        ("LIF", "sequence", "LIF", "X v0 beta gain v_threshold v_reset", "S vT"),
        ("LIF", "cell", "LIFCell", "x v beta gain v_threshold v_reset", "s v_next"),
        ("IF", "sequence", "IF", "X v0 gain v_threshold v_reset", "S vT"),
        ("IF", "cell", "IFCell", "x v gain v_threshold v_reset", "s v_next"),
        ("LI", "sequence", "LI", "X v0 beta gain", "V vT"),
        ("LI", "cell", "LICell", "x v beta gain", "y v_next"),
        ("CubaLIF", "sequence", "CubaLIF", "X i0 v0 alpha beta gain v_threshold v_reset", "S iT vT"),
        ("CubaLIF", "cell", "CubaLIFCell", "x i v alpha beta gain v_threshold v_reset", "s i_next v_next"),
    ],
)
def test_inputs_and_outputs(operator: str, form: str, name: str, inputs: str, outputs: str) -> None:
    described = schema(operator, form)
    assert described.name == name
    assert [value.name for value in described.inputs] == inputs.split()
    assert [value.name for value in described.outputs] == outputs.split()


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("form", FORMS)
class TestEverySchema:
    def test_roles_are_in_order(self, operator: str, form: str) -> None:
        described = schema(operator, form)
        states = 2 if operator == "CubaLIF" else 1
        roles = [value.role for value in described.inputs]
        last = ["steps"] if form == "flat" else []
        parameters = ["parameter"] * (len(roles) - 1 - states - len(last))
        assert roles == ["signal", *["state"] * states, *parameters, *last]
        assert [value.role for value in described.outputs] == ["signal", *["state"] * states]
        assert described.states == tuple((index, index) for index in range(1, states + 1))

    def test_everything_is_documented(self, operator: str, form: str) -> None:
        described = schema(operator, form)
        assert described.doc
        for part in (*described.inputs, *described.outputs, *described.attributes):
            assert part.doc, part.name
        for value in (*described.inputs, *described.outputs):
            assert value.shape, value.name

    def test_defaults_are_those_of_a_variant(self, operator: str, form: str) -> None:
        described = schema(operator, form)
        assert NeuronVariant(operator, form).attributes() == {
            attribute.name: attribute.default for attribute in described.attributes
        }
        for attribute in described.attributes:
            attribute.validate(attribute.default)

    def test_time_axis_only_in_sequences(self, operator: str, form: str) -> None:
        described = schema(operator, form)
        for value in (*described.inputs, *described.outputs):
            assert ("T, " in value.shape) == (value.role == "signal" and form == "sequence"), value.name


def test_attributes_per_operator() -> None:
    names = {operator: [attribute.name for attribute in schema(operator).attributes] for operator in OPERATORS}
    spiking = ["reset", "reset_delay", "fire", "max_spikes", "arithmetic"]
    assert names == {"LIF": spiking, "IF": spiking, "LI": ["arithmetic"], "CubaLIF": spiking}


def test_an_integrator_without_leak_has_one_arithmetic() -> None:
    allowed = {operator: schema(operator).attributes[-1].allowed for operator in OPERATORS}
    assert allowed == {**dict.fromkeys(OPERATORS, ("decay", "relax")), "IF": ("decay",)}


def test_schemas_are_shared() -> None:
    assert schema("LIF") is schema("LIF")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ALIF",), "operator must be 'LIF' or 'IF' or 'LI' or 'CubaLIF', not 'ALIF'"),
        (("LIF", "step"), "form must be 'sequence' or 'cell' or 'flat', not 'step'"),
    ],
)
def test_unknown_operator_or_form(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        schema(*arguments)
