"""Written arithmetic: one spelling, no way out of it, the same bits in numpy and in onnxruntime, and what it means."""

from __future__ import annotations

import itertools

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from snn_optimizer.ops import DOMAIN, NeuronVariant, NotUnderstood, Program, function_proto, meaning, sequence, step

SUBTRACT_DELAYED = "v_next = ((beta * v) + x) - (gt(v, v_threshold) * v_threshold); s = gt(v_next, v_threshold)"
ZERO_DELAYED = "u = (beta * v) + x; v_next = u - (gt(v, v_threshold) * (beta * v)); s = gt(v_next, v_threshold)"
HARD = "u = v + ((x - v) / tau); s = ge(u, v_threshold); v_next = ((1.0 - s) * u) + (s * v_reset)"
SOFT = "u = v + ((x - v) / tau); s = ge(u, v_threshold); v_next = u - (s * v_threshold)"
NORSE = (
    "a = i + x; u = v + (rate * ((0.0 - v) + a)); i_next = a + (drain * a); s = gt(u, v_threshold); "
    "v_next = (1.0 - s) * u"
)
SINABS = (
    "u = (alpha * v) + x; s = gt(u, 0.0) * trunc(u / v_threshold); v_next = relu((u - (s * v_threshold)) - -1.0) + -1.0"
)
TWO_CURRENTS = "u = (beta * v) + (0.1 * x0); w = u + x1; s = gt(w, 1.0); v_next = w - s"
LITERAL = "u = (0.9 * v) + x; s = ge(u, 0.75); v_next = (1.0 - s) * u"
INTEGRATE = "u = v + x; s = gt(u, 1.0); v_next = u - s"
READOUT = "v_next = (beta * v) + x"
PROGRAMS = {
    "subtract-delayed": SUBTRACT_DELAYED,
    "zero-delayed": ZERO_DELAYED,
    "hard": HARD,
    "soft": SOFT,
    "norse": NORSE,
    "sinabs": SINABS,
    "two-currents": TWO_CURRENTS,
    "literal": LITERAL,
    "integrate": INTEGRATE,
    "readout": READOUT,
}
STEPS, BATCH, UNITS = 6, 3, 5
FORMS = ("sequence", "flat", "cell")


def variant_of(program: str, form: str, record: str = "") -> NeuronVariant:
    read = Program.parse(program)
    operator = "CubaLIF" if "i" in read.states else "LIF" if "s" in read.results else "LI"
    spiking = {} if operator == "LI" else {"reset": "other", "max_spikes": 0 if "trunc" in program else 1}
    return NeuronVariant(operator, form, arithmetic=program, record=record, **spiking)


def run(variant: NeuronVariant, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Call the function of a variant in the plain runtime; the number of steps is stored, as raised models have it."""
    call = helper.make_node(
        variant.op_type, list(variant.inputs), list(variant.outputs), domain=DOMAIN, **variant.attributes()
    )
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim)
        for name, array in zip(variant.inputs, arrays, strict=True)
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in variant.outputs]
    stored = [numpy_helper.from_array(array, "steps") for array in arrays if array.dtype == np.int64]
    inputs = [value for value in inputs if value.name != "steps"]
    model = helper.make_model(
        helper.make_graph([call], "call", inputs, outputs, stored),
        functions=[function_proto(variant)],
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)],
        ir_version=10,
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = dict(zip(variant.inputs, arrays, strict=True))
    given.pop("steps", None)
    return session.run(None, given)


def arrays_for(variant: NeuronVariant, seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    signal = {"sequence": (STEPS, BATCH, UNITS), "flat": (STEPS * BATCH, UNITS), "cell": (BATCH, UNITS)}[variant.form]
    arrays = []
    for parameter in variant.schema.inputs:
        if parameter.role == "steps":
            arrays.append(np.array([STEPS], np.int64))
            continue
        shape = {"signal": signal, "state": (BATCH, UNITS)}.get(parameter.role, (UNITS,))
        array = generator.normal(0.5, 1.0, shape)
        arrays.append((np.abs(array) + 0.1 if parameter.role == "parameter" else array).astype(np.float32))
    return arrays


def assert_agree(variant: NeuronVariant, arrays: list[np.ndarray]) -> None:
    found = run(variant, arrays)
    if variant.form == "cell":
        wanted = step(variant, arrays)
    else:
        given = [
            array.reshape(STEPS, BATCH, *array.shape[1:])
            if parameter.role == "signal" and variant.form == "flat"
            else array
            for parameter, array in zip(variant.schema.inputs, arrays, strict=True)
            if parameter.role != "steps"
        ]
        wanted = sequence(variant, given)
    assert len(found) == len(wanted)
    for new, old in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(new, np.asarray(old).reshape(new.shape))


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_is_printed_as_it_was_read(name: str) -> None:
    program = Program.parse(PROGRAMS[name])
    assert program.text == PROGRAMS[name]
    assert Program.parse(program.text) == program
    assert Program(program.statements).digest == program.digest


def test_programs_say_what_they_read_and_give() -> None:
    program = Program.parse(NORSE)
    assert program.states == ("i", "v")
    assert program.currents == ("x",)
    assert program.parameters == ("rate", "drain", "v_threshold")
    assert Program.parse(TWO_CURRENTS).currents == ("x0", "x1")
    assert Program.parse(INTEGRATE).count() == 3
    assert len({Program.parse(text).digest for text in PROGRAMS.values()}) == len(PROGRAMS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ";",
        "v_next",
        "v_next = ",
        "v_next == v",
        "v_next = v;",
        "v_next = v; v_next = v",
        "v = v; v_next = v",
        "x = v; v_next = v",
        "s = gt(v, 1.0)",
        "v_next = v + x + x",
        "v_next = (v + x)",
        "v_next = v+x",
        " v_next = v",
        "v_next = v + 1",
        "v_next = v ** 2.0",
        "v_next = v // 2.0",
        "v_next = v @ x",
        "v_next = v if x else v",
        "v_next = [v]",
        "v_next = v[0]",
        "v_next = lambda: v",
        "v_next = (w := v)",
        "v_next = v.real",
        "v_next = v.__class__.__mro__",
        "v_next = __import__('os')",
        "v_next = eval(v)",
        "v_next = gt(v)",
        "v_next = gt(v, x, x)",
        "v_next = gt(v, b=x)",
        "v_next = gt(*v)",
        "v_next = gt(gt)(v, x)",
        "v_next = 'v'",
        "v_next = True",
        "v_next = -v",
        "v_next = -True",
        "v_next = 1j",
        "v_next = v\nimport os",
        "v_next = v # comment",
        "a.b = v; v_next = v",
        "v_next = " + "neg(" * 500 + "v" + ")" * 500,
        "v_next = " + "(" * 2000 + "v" + ")" * 2000,
        "v_next = " + " + ".join(["v"] * 2000),
        "v_next = " + "v" * 5000,
    ],
    ids=lambda text: text[:24],
)
def test_what_is_no_program_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Program.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "v_next = -...",
        "v_next = -None",
        "v_next = -1j",
        "v_next = -" + "9" * 400,
        "v_next = " + " + ".join(["v"] * 900),
    ],
    ids=["ellipsis", "none", "complex", "huge", "long sum"],
)
def test_what_is_no_program_is_refused_as_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Program.parse(text)


@pytest.mark.parametrize(
    "text",
    ["v_next = __import__", "v_next = v + __builtins__", "v_next = exec * v"],
)
def test_hostile_names_are_only_names(text: str) -> None:
    program = Program.parse(text)
    (name,) = program.parameters
    with pytest.raises(KeyError, match=name):
        program.run({"v": np.zeros(1, np.float32)})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_numpy_and_the_function_agree_to_the_bit(name: str, form: str) -> None:
    for seed in range(3):
        variant = variant_of(PROGRAMS[name], form)
        assert_agree(variant, arrays_for(variant, seed))


@pytest.mark.parametrize("form", ["sequence", "flat"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_what_is_recorded_agrees_to_the_bit(name: str, form: str) -> None:
    records = ("i", "v", "iv") if name == "norse" else ("v",)
    for record in records:
        variant = variant_of(PROGRAMS[name], form, record)
        assert_agree(variant, arrays_for(variant))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("threshold", [1.0, 0.1, 0.75, -0.5, 3.0e-20, 1.5e7, 2.0**-70, 2.0**27, 1.0e-30, 0.0])
@pytest.mark.parametrize("test", ["gt", "ge"])
def test_potentials_next_to_the_threshold_fall_on_the_right_side(test: str, threshold: float, form: str) -> None:
    limit = np.float32(threshold)
    below, above = np.nextafter(limit, np.float32(-np.inf)), np.nextafter(limit, np.float32(np.inf))
    edge = np.unique(np.array([below, limit, above, 0, -limit, 1e30, -1e30], np.float32))
    for after in ("(1.0 - s) * u", "u - s"):
        variant = variant_of(f"u = x + (0.0 * v); s = {test}(u, {float(limit)!r}); v_next = {after}", form)
        train = np.tile(edge, (STEPS, BATCH, 1))
        signal = {"sequence": train, "flat": train.reshape(-1, len(edge)), "cell": train[0]}[form]
        arrays = [signal, np.zeros((BATCH, len(edge)), np.float32)]
        arrays += [np.array([STEPS], np.int64)] if form == "flat" else []
        assert_agree(variant, arrays)
        spikes = run(variant, arrays)[0].reshape(-1, len(edge))
        wanted = edge > limit if test == "gt" else edge >= limit
        np.testing.assert_array_equal(spikes, np.tile(wanted, (len(spikes), 1)))


def test_a_program_runs_in_the_type_of_its_operands() -> None:
    for dtype, text in itertools.product((np.float16, np.float32, np.float64), (HARD, SINABS)):
        program = Program.parse(text)
        names = (*program.currents, *program.states, *program.parameters)
        results = program.run({name: np.full(2, 0.7, dtype) for name in names})
        assert {array.dtype for array in results.values()} == {np.dtype(dtype)}


@pytest.mark.parametrize(
    ("program", "parameters", "wanted"),
    [
        (SUBTRACT_DELAYED, {"beta": 0.9, "v_threshold": 1.0}, ("LIF", "subtract", 1, "gt", 1, 0.9, 1.0, 1.0)),
        (ZERO_DELAYED, {"beta": 0.9, "v_threshold": 1.0}, ("LIF", "to-value", 1, "gt", 1, 0.9, 1.0, 1.0)),
        (HARD, {"tau": 4.0, "v_threshold": 2.0, "v_reset": 0.5}, ("LIF", "to-value", 0, "ge", 1, 0.75, 0.25, 2.0)),
        (SOFT, {"tau": 2.0, "v_threshold": 1.0}, ("LIF", "subtract", 0, "ge", 1, 0.5, 0.5, 1.0)),
        (
            NORSE,
            {"rate": 0.1, "drain": -0.2, "v_threshold": 0.5},
            ("CubaLIF", "to-value", 0, "gt", 1, 0.9, 0.1, 0.5),
        ),
        (SINABS, {"alpha": 0.8, "v_threshold": 0.5}, ("LIF", "subtract", 0, "ge", 0, 0.8, 1.0, 0.5)),
        (INTEGRATE, {}, ("IF", "subtract", 0, "gt", 1, 1.0, 1.0, 1.0)),
        (READOUT, {"beta": 0.8}, ("LI", "subtract", 0, "gt", 1, 0.8, 1.0, None)),
    ],
)
def test_the_meaning_of_known_neurons(program: str, parameters: dict[str, float], wanted: tuple) -> None:
    read = meaning(Program.parse(program), parameters)
    operator, reset, delay, fire, most, beta, gain, threshold = wanted
    assert (read.operator, read.reset, read.reset_delay, read.fire, read.max_spikes) == (
        operator, reset, delay, fire, most,
    )  # fmt: skip
    assert read.beta == pytest.approx(beta)
    assert read.charge["x"] == pytest.approx(gain)
    assert (read.v_threshold is None) == (threshold is None)
    assert threshold is None or read.v_threshold == pytest.approx(threshold)
    assert read.clamped == ("relu" in program)


def test_the_meaning_of_details() -> None:
    hard = meaning(Program.parse(HARD), {"tau": 2.0, "v_threshold": 1.0, "v_reset": [0.5, -0.25]})
    np.testing.assert_allclose(hard.v_reset, [0.5, -0.25])
    zero = meaning(Program.parse(ZERO_DELAYED), {"beta": [0.9, 0.5], "v_threshold": 1.0})
    np.testing.assert_allclose(zero.v_reset, 0.0, atol=1e-12)
    np.testing.assert_allclose(zero.beta, [0.9, 0.5])
    norse = meaning(Program.parse(NORSE), {"rate": 0.1, "drain": -0.2, "v_threshold": 0.5})
    assert norse.synaptic["i"] == pytest.approx(0.8)
    assert norse.synaptic["x"] == pytest.approx(0.8)
    assert norse.charge["i"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("program", "parameters"),
    [
        (SOFT, {"tau": 2.0}),
        ("s = gt(v * x, 1.0); v_next = v + x", {}),
        ("s = eq(v, 1.0); v_next = v + x", {}),
        ("s = gt(v, 1.0) * gt(x, 1.0); v_next = v + x", {}),
        ("s = gt(x, 1.0); v_next = v + x", {}),
        ("v_next = v * v", {}),
        ("v_next = v / x", {}),
        ("v_next = v + gt(x, 0.5)", {}),
        ("s = v; v_next = v + x", {}),
        ("s = gt(v, x); v_next = v + x", {}),
        ("v_next = max(v, x)", {}),
        ("u = v + x; s = gt(u, 1.0); i_next = i - s; v_next = u - i", {}),
        ("u = v + x; s = floor(u); v_next = u - s", {}),
    ],
)
def test_nonsense_has_no_meaning(program: str, parameters: dict[str, float]) -> None:
    with pytest.raises(NotUnderstood, match=r"."):
        meaning(Program.parse(program), parameters)
