"""Products that read only what fired: chosen by measured costs and activity, right for every batch and every train."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from snn_optimizer.api import Job, run_job
from snn_optimizer.errors import InputError, PassOptionError
from snn_optimizer.execution import Session
from snn_optimizer.ops import NeuronVariant
from snn_optimizer.passes import registry
from snn_optimizer.projection_costs import this_machine
from tests.support.costs import write_costs
from tests.support.models import (
    ModelBuilder,
    conv,
    initializer,
    mlp,
    recurrent,
    spike_trains,
    streaming,
    with_initializer,
)

FAST = 10e-6  # against the 100 of the dense form


def lowered(model: onnx.ModelProto, x, tmp_path: Path, *, options: str = "", verify: bool = True, **costs):
    """Return the model after the pass, and the report."""
    path = write_costs(tmp_path / "costs.json", **costs)
    pipeline = f'event-driven{{costs="{path}" {options}}}'.replace(" }", "}")
    data = x if isinstance(x, dict) else {"x": x}
    graph, report = run_job(model, Job(pipeline=pipeline, calibration=data, verify=verify))
    after = graph.to_onnx()
    onnx.checker.check_model(after, full_check=True)
    return after, report


def rules(report, kind: str) -> dict[str, str]:
    return {r.place: r.rule for r in report.remarks if r.kind == kind and r.pass_name == "event-driven"}  # noqa: S105


def remark(report, rule: str):
    return next(r for r in report.remarks if r.rule == rule)


def ops_of(model: onnx.ModelProto) -> list[str]:
    def walk(nodes):
        for node in nodes:
            yield node.op_type
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    yield from walk(attribute.g.node)

    return list(walk(model.graph.node))


def assert_same(before: onnx.ModelProto, after: onnx.ModelProto, feeds: dict) -> np.ndarray:
    old, new = (Session(each).run(feeds) for each in (before, after))
    fast = Session(after, optimize=True).run(feeds)
    for name, array in old.items():
        np.testing.assert_allclose(new[name], array, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(fast[name], array, rtol=1e-5, atol=1e-5)
    return next(iter(old.values()))


def trains_of_every_kind(*shape: int):
    yield np.zeros(shape, np.float32)
    yield np.ones(shape, np.float32)
    for seed in range(3):
        yield spike_trains(*shape, seed=seed)


@pytest.mark.parametrize(
    ("costs", "form", "contains"),
    [
        ({"several": FAST}, "several", "Scan"),
        ({"pooled": FAST}, "pooled", "ReduceMax"),
        ({"several": FAST, "pooled": FAST / 2}, "pooled", "ReduceMax"),
    ],
)
def test_the_faster_form_is_written_and_right_for_every_batch(
    tmp_path: Path, costs: dict, form: str, contains: str
) -> None:
    model = mlp((8, 24, 12, 5), steps=6)
    after, report = lowered(model, spike_trains(6, 20, 8), tmp_path, **costs)
    assert rules(report, "applied") == {"fc2": "gathered", "fc3": "gathered"}
    assert rules(report, "missed") == {"fc1": "not-binary"}
    assert report.evidence.verdict == "EQUIVALENT"
    (result,) = report.pass_results
    assert (result.status, result.claim, result.statistics) == ("kept", "algebraic", {"guarded": 2})
    arguments = remark(report, "gathered").arguments
    assert (arguments["form"], arguments["rows"]) == (form, 6)
    assert arguments["limit"] == (64 if form == "several" else 6)
    assert {contains, "If", "NonZero"} <= set(ops_of(after))
    fired = False
    for batch in (0, 1, 2, 8, 11):  # none, and on both sides of the limits
        for x in trains_of_every_kind(6, batch, 8):
            fired |= bool(assert_same(model, after, {"x": x}).any())
    assert fired


@pytest.mark.parametrize(
    ("dense", "rewritten"), [([30e-6, 30e-6, 30e-6], False), ([90e-6, 90e-6, 90e-6], False), ([130e-6] * 3, True)]
)
def test_the_dense_form_stays_where_too_little_is_saved(tmp_path: Path, dense: list, *, rewritten: bool) -> None:
    model = mlp((8, 24, 5), steps=6)
    after, report = lowered(model, spike_trains(6, 20, 8), tmp_path, dense=dense, pooled=80e-6)
    assert rules(report, "applied") == ({"fc2": "gathered"} if rewritten else {})
    if not rewritten:
        assert rules(report, "missed")["fc2"] == "dense-faster"
        assert "24 x 5, 6 vectors" in remark(report, "dense-faster").message
        assert [n.op_type for n in after.graph.node] == [n.op_type for n in model.graph.node]
        assert report.pass_results[0].status == "unchanged"


def test_the_margin_decides(tmp_path: Path) -> None:
    model, x = mlp((8, 24, 5), steps=6), spike_trains(6, 20, 8)
    for margin, expected in ((0.0, True), (0.25, True), (0.3, False)):
        _, report = lowered(model, x, tmp_path, options=f"margin={margin}", dense=100e-6, pooled=70e-6)
        assert ("fc2" in rules(report, "applied")) == expected, margin


def test_the_guard_is_paid_for_where_the_batch_is_open(tmp_path: Path) -> None:
    x = spike_trains(6, 20, 8)
    costs = {"dense": 100e-6, "pooled": 60e-6, "guard": 30e-6}
    _, opened = lowered(mlp((8, 24, 5), steps=6), x, tmp_path, **costs)
    assert rules(opened, "missed")["fc2"] == "dense-faster"
    after, fixed = lowered(mlp((8, 24, 5), steps=6, batch=1), x, tmp_path, **costs)
    assert rules(fixed, "applied") == {"fc2": "gathered"}
    assert "If" not in ops_of(after)


def test_activity_decides(tmp_path: Path) -> None:
    model = mlp((8, 24, 5), steps=6)
    costs = {"pooled": [10e-6, 1000e-6], "shares": (0.0, 1.0)}
    _, busy = lowered(model, np.ones((6, 20, 8), np.float32), tmp_path, **costs)
    assert rules(busy, "missed")["fc2"] == "dense-faster"
    _, quiet = lowered(model, np.zeros((6, 20, 8), np.float32), tmp_path, **costs)
    found = {**rules(quiet, "applied"), **rules(quiet, "missed")}
    assert found["fc2"] == "gathered"


def test_more_activity_than_was_measured_is_dense(tmp_path: Path) -> None:
    _, report = lowered(mlp((8, 24, 5), steps=6), spike_trains(6, 20, 8), tmp_path, pooled=FAST, shares=(0.0, 1e-4))
    assert "more than measured" in remark(report, "dense-faster").message


@pytest.mark.parametrize("batch", [1, "batch"])
def test_one_step_and_one_sample(tmp_path: Path, batch) -> None:
    model = mlp((8, 24, 5), steps=1, batch=batch)
    after, report = lowered(model, spike_trains(1, 20, 8), tmp_path, single=FAST)
    arguments = remark(report, "gathered").arguments
    assert (arguments["form"], arguments["limit"]) == ("single", 1 if batch == "batch" else 0)
    for size in (1,) if batch == 1 else (1, 8):
        for x in trains_of_every_kind(1, size, 8):
            assert_same(model, after, {"x": x})


def test_a_model_that_runs_one_step_per_call(tmp_path: Path) -> None:
    model = streaming((8, 24, 5))
    generator = np.random.default_rng(0)
    feeds = {
        "x": spike_trains(40, 8),
        "v1": generator.random((40, 24)).astype(np.float32),
        "v2": generator.random((40, 5)).astype(np.float32),
    }
    after, report = lowered(model, feeds, tmp_path, single=FAST)
    assert rules(report, "applied") == {"fc2": "gathered"}
    for size in (1, 8, 40):
        assert_same(model, after, {name: array[:size] for name, array in feeds.items()})


def test_a_layer_that_reads_itself_in_a_loop(tmp_path: Path) -> None:
    model = recurrent(units=16)
    after, report = lowered(model, spike_trains(9, 20, 6), tmp_path, single=FAST)
    assert list(rules(report, "applied").values()) == ["gathered"]
    assert rules(report, "missed")["fc1"] == "not-binary"
    body = next(a.g for node in after.graph.node if node.op_type == "Scan" for a in node.attribute if a.name == "body")
    assert "If" in {node.op_type for node in body.node}
    for size in (1, 8):
        for x in trains_of_every_kind(9, size, 6):
            assert_same(model, after, {"x": x})


def shared_weights(bias: bool = True) -> onnx.ModelProto:
    """Two populations drive two products with one weight; the first product has three axes and no bias."""
    builder = ModelBuilder()
    builder.input("x", (5, "batch", 8))
    rows = builder.reshape("x", "rows", (-1, 8))
    for name in ("a", "b"):
        current = builder.linear(f"fc_{name}", rows, builder.weights(16, 8, scale=2.0), np.full(16, 0.1))
        current = builder.reshape(current, f"lif_{name}.x", (5, -1, 16))
        builder.neuron(f"lif_{name}", NeuronVariant("LIF"), current)
    weight = builder.constant("shared", builder.weights(4, 16))
    builder.node("MatMul", ["lif_a.s", builder.constant("turned", builder.weights(16, 4))], "ya", name="one")
    flat = builder.reshape("lif_b.s", "flat", (-1, 16))
    other = builder.reshape("lif_a.s", "flat_a", (-1, 16))
    operands = [weight, builder.constant("bias", np.full(4, 0.5))] if bias else [weight]
    builder.node("Gemm", [flat, *operands], "yb", name="two", transB=1)
    builder.node("Gemm", [other, *operands], "yc", name="three", transB=1)
    builder.output("ya", (5, "batch", 4))
    for name in ("yb", "yc"):
        builder.output(name, ("rows", 4))
    return builder.build()


@pytest.mark.parametrize("form", ["several", "pooled"])
@pytest.mark.parametrize("bias", [True, False])
def test_two_readers_of_one_weight_share_it_afterwards(tmp_path: Path, form: str, *, bias: bool) -> None:
    model = shared_weights(bias)
    after, report = lowered(model, spike_trains(5, 20, 8), tmp_path, **{form: FAST})
    assert rules(report, "applied") == {"one": "gathered", "two": "gathered", "three": "gathered"}
    assert sum(t.dims == [16, 4] for t in after.graph.initializer) == 2
    assert not any(t.dims == [4, 16] for t in after.graph.initializer)
    for size in (1, 8, 20):
        for x in trains_of_every_kind(5, size, 8):
            assert_same(model, after, {"x": x})


def test_a_weight_that_also_stays_is_kept(tmp_path: Path) -> None:
    model = mlp((8, 8, 8), steps=6, weights=[np.eye(8, dtype=np.float32)] * 2)
    for node in model.graph.node:  # both layers read the first weight
        node.input[:] = ["fc1.weight" if name == "fc2.weight" else name for name in node.input]
    after, report = lowered(model, spike_trains(6, 20, 8), tmp_path, pooled=FAST)
    assert rules(report, "applied") == {"fc2": "gathered"}
    for x in trains_of_every_kind(6, 3, 8):
        assert_same(model, after, {"x": x})


def test_sums_without_rounding_keep_every_bit(tmp_path: Path) -> None:
    model = mlp((8, 24, 5), steps=6)
    weights = np.rint(initializer(model, "fc2.weight") * 16) / 16
    model = with_initializer(with_initializer(model, "fc2.weight", weights), "fc2.bias", np.full(5, 0.25))
    after, report = lowered(model, spike_trains(6, 20, 8), tmp_path, pooled=FAST)
    assert report.pass_results[0].claim == "bitwise"
    for x in trains_of_every_kind(6, 1, 8):
        (old,), (new,) = (Session(each).run({"x": x}).values() for each in (model, after))
        np.testing.assert_array_equal(new, old)


def test_running_it_again_changes_nothing(tmp_path: Path) -> None:
    model, x = mlp((8, 24, 5), steps=6), spike_trains(6, 20, 8)
    after, _ = lowered(model, x, tmp_path, several=FAST)
    again, report = lowered(after, x, tmp_path, several=FAST)
    assert report.pass_results[0].status == "unchanged"
    assert again.SerializeToString() == after.SerializeToString()


@pytest.mark.parametrize(
    ("model", "place", "rule"),
    [
        (mlp((8, 24, 5), steps=6, variant=NeuronVariant("LIF", max_spikes=0)), "fc2", "not-binary"),
        (
            with_initializer(mlp((8, 24, 5), steps=6), "fc2.weight", np.full((5, 24), np.inf, np.float32)),
            "fc2",
            "weight-not-finite",
        ),
        (mlp((8, 5000, 5), steps=6), "fc2", "unmeasured-size"),
    ],
)
def test_what_stays_dense_says_why(tmp_path: Path, model: onnx.ModelProto, place: str, rule: str) -> None:
    _, report = lowered(model, spike_trains(6, 4, 8), tmp_path, verify=False, pooled=FAST, several=FAST)
    assert rules(report, "missed")[place] == rule
    assert rules(report, "applied") == {}


def synapse(op: str, weight: np.ndarray, **attributes) -> onnx.ModelProto:
    builder = ModelBuilder()
    builder.input("x", (6, "batch", 8))
    builder.neuron("lif", NeuronVariant("LIF"), "x", v_threshold=0.5)
    source = "lif.s" if op == "MatMul" else builder.reshape("lif.s", "rows", (-1, 8))
    if op == "Conv":
        source = builder.reshape("lif.s", "maps", (-1, 8, 1))
    if weight.dtype != np.float32:
        source = builder.node("Cast", [source], "wide", to=int(onnx.helper.np_dtype_to_tensor_dtype(weight.dtype)))
    builder.node(op, [source, builder.constant("w", weight, weight.dtype)], "y", name="fc", **attributes)
    builder.output("y", [f"d{axis}" for axis in range(3 if op != "Gemm" else 2)], weight.dtype)
    return builder.build()


@pytest.mark.parametrize(
    ("model", "rule"),
    [
        (synapse("Gemm", np.ones((8, 4), np.float32), alpha=0.5), "scaled-product"),
        (synapse("MatMul", np.ones((8, 4), np.float64)), "element-type"),
        (synapse("MatMul", np.ones((1, 8, 4), np.float32)), "no-matrix"),
        (synapse("Conv", np.ones((4, 8, 1), np.float32)), "convolution"),
    ],
)
def test_other_products_stay(tmp_path: Path, model: onnx.ModelProto, rule: str) -> None:
    _, report = lowered(model, spike_trains(6, 4, 8), tmp_path, pooled=FAST, several=FAST)
    assert rules(report, "missed") == {"fc": rule}


def test_a_network_without_products_of_spikes_needs_no_costs(tmp_path: Path) -> None:
    _, report = run_job(conv(), Job(pipeline=f'event-driven{{costs="{tmp_path}/none.json"}}', verify=False))
    assert rules(report, "missed") == {"conv1": "not-binary", "fc2": "not-binary"}


def test_without_data_or_costs_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = mlp((8, 24, 5), steps=6), spike_trains(6, 4, 8)
    monkeypatch.setenv("SNNOPT_COSTS", str(tmp_path / "costs.json"))
    job = Job(pipeline="event-driven", calibration={"x": x})
    _, report = run_job(model, job)
    assert "snnopt bench --calibrate" in remark(report, "no-cost-model").message
    write_costs(tmp_path / "costs.json", pooled=FAST, machine=this_machine() | {"processor": "Abacus"})
    _, report = run_job(model, job)
    assert "processor is 'Abacus'" in remark(report, "other-machine").message
    assert rules(report, "applied") == {}
    write_costs(tmp_path / "costs.json", pooled=FAST)
    _, report = run_job(model, Job(pipeline="event-driven"))
    assert "--calib" in remark(report, "no-activity").message
    assert rules(report, "applied") == {}
    _, report = run_job(model, job)
    assert rules(report, "applied") == {"fc2": "gathered"}


def test_costs_of_another_machine_are_taken_when_they_are_named(tmp_path: Path) -> None:
    machine = this_machine() | {"processor": "Abacus"}
    model, x = mlp((8, 24, 5), steps=6), spike_trains(6, 4, 8)
    _, report = lowered(model, x, tmp_path, pooled=FAST, machine=machine)
    assert rules(report, "applied") == {"fc2": "gathered"}
    assert rules(report, "analysis") == {"network": "other-machine"}
    with pytest.raises(InputError, match="no such file"):
        run_job(model, Job(pipeline=f'event-driven{{costs="{tmp_path / "none"}"}}', calibration={"x": x}))
    with pytest.raises(PassOptionError, match="margin is 1"):
        registry.create("event-driven", {"margin": 1.0})
