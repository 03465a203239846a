"""Certificates of optimized networks hold, say what was proved, and fall with every change."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from snn_optimizer.api import Job, run_job
from snn_optimizer.certificates import check
from snn_optimizer.certificates.document import seal
from snn_optimizer.certifying import certify
from snn_optimizer.execution import Observer
from snn_optimizer.execution.source import model_digest
from tests.support.broken_passes import network, registered
from tests.support.models import mlp, with_initializer
from tests.support.planting import KINDS, Hidden, build, healthy


def certified(model: Any, **job: Any) -> tuple[onnx.ModelProto, dict[str, Any]]:
    chosen = Job(**{"pipeline": "@O2", "verify": False, **job})
    graph, _ = run_job(model, chosen)
    return graph.to_onnx(), json.loads(certify(model, graph, chosen))


def planted(kind: str, fault: str) -> Hidden:
    hidden = healthy(kind, 1)
    alone = {} if hidden.back is None else {"back": 0.0}
    return {
        "never-fires": lambda: hidden.with_rows([2, 5], weight=-0.5, bias=-0.5, **alone),
        "always-fires": lambda: hidden.with_rows(2, weight=0.5, bias=8.0, beta=0.5, v0=0.0, threshold=1.0, **alone),
        "fires-with": lambda: hidden.twin(1, 4),
        "read-by-zeros": lambda: hidden.with_rows(3, out=0.0),
    }[fault]()


FEED_FORWARD = [kind for kind in KINDS if kind != "recurrent"]


@pytest.mark.parametrize("steps", [None, 5])
@pytest.mark.parametrize("fault", ["never-fires", "always-fires", "fires-with", "read-by-zeros"])
@pytest.mark.parametrize("kind", FEED_FORWARD)
def test_every_kind_of_cut_is_proved_in_every_kind_of_network(kind: str, fault: str, steps: int | None) -> None:
    model = build(kind, planted(kind, fault), steps=steps)
    after, content = certified(model)
    found = check(model, after, content)
    assert found.holds, found.reason
    assert found.assumed == 0
    rules = {record["rule"] for entry in content["cuts"] for record in entry["records"]}
    if kind == "residual" and fault == "read-by-zeros":  # the branch reads the unit too
        assert found.proved == 0
    else:
        assert rules == {fault}
        assert found.proved > 0
        assert found.level == "bit-exact"
        assert found.level_reason.startswith("all sums are exact")


def test_twins_at_another_scale() -> None:
    model = build("gemm", healthy("gemm", 1).twin(1, 4, 2.0))
    after, content = certified(model)
    assert content["cuts"][0]["records"][0]["rule"] == "fires-with"
    assert check(model, after, content).holds


@pytest.mark.parametrize("steps", [None, 5])
@pytest.mark.parametrize("fault", ["never-fires", "fires-with"])
def test_what_is_cut_in_a_loop_over_time_is_proved_by_induction(fault: str, steps: int | None) -> None:
    hidden = planted("recurrent", fault)
    if fault == "never-fires":  # each would fire if the other did: only both together are silent
        back = np.array(hidden.back)
        back[2, 5] = back[5, 2] = 8.0
        hidden = replace(hidden, back=back)
    model = build("recurrent", hidden, steps=steps)
    after, content = certified(model)
    found = check(model, after, content)
    assert found.holds, found.reason
    assert {record["rule"] for entry in content["cuts"] for record in entry["records"]} == {fault}
    assert found.proved == (2 if fault == "never-fires" else 1)
    assert found.level == "bit-exact"


def test_silence_that_the_start_breaks_is_not_proved() -> None:
    """A unit that the spikes of the start make fire: what is claimed of it must not prove itself."""
    hidden = planted("recurrent", "never-fires")
    back = np.array(hidden.back)
    back[2, 5] = back[5, 2] = 8.0
    model = build("recurrent", replace(hidden, back=back))
    after, content = certified(model)
    loop = next(node for node in model.graph.node if node.op_type == "Scan")
    start = next(node for node in model.graph.node if node.output[0] == loop.input[1])
    start.attribute.append(onnx.helper.make_attribute("value", numpy_helper.from_array(np.ones(1, np.float32))))
    for other in (model, after):
        content["before" if other is model else "after"]["sha256"] = model_digest(other)
    node = next(node for node in after.graph.node if node.output[0] == start.output[0])
    node.attribute.append(start.attribute[-1])
    content["after"]["sha256"] = model_digest(after)
    content["seal"] = seal(content)
    found = check(model, after, content)
    assert not found.holds


def test_weights_that_were_refitted_are_not_claimed(models: Path) -> None:
    model, calib = models / "digits_pruned.onnx", models / "digits_pruned.calib.npz"
    after, content = certified(model, pipeline="compress-units{fraction=0.2}", calibration=calib)
    assert content["unrelated"]
    found = check(model, after, content, calib)
    assert found.holds
    assert found.level == "statistical"
    assert content["data"]["changed_at_most"] > content["data"]["changed"] / content["data"]["samples"]


def test_cuts_by_measured_rates_are_said_to_be_unproved(models: Path) -> None:
    model, calib = models / "digits_mlp.onnx", models / "digits_mlp.calib.npz"
    after, content = certified(model, pipeline="dead-neuron-elimination{measured}", calibration=calib)
    found = check(model, after, content, calib)
    assert found.holds, found.reason
    assert found.assumed > 0
    assert found.level == "statistical"
    assert "without proof" in found.level_reason


# -- the models of this project ------------------------------------------------------------


def all_models() -> list[str]:
    root = Path(__file__).resolve().parents[3] / "models"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*.onnx"))


@pytest.mark.parametrize("name", all_models())
def test_certificates_of_o2_hold(name: str, models: Path) -> None:
    model = models / name
    calib = model.with_suffix(".calib.npz")
    data = calib if calib.exists() else None
    after, content = certified(model, calibration=data)
    assert content["unrelated"] is None
    found = check(model, after, content, data)
    assert found.holds, found.reason
    assert found.assumed == 0
    expected = {"digits_wide.onnx": 674, "digits_pruned.onnx": 60}.get(name, 0)
    assert found.proved == expected


def test_classes_of_trained_networks(models: Path) -> None:
    """Nothing cut: the same operations. Sums with other terms: rounded, unless all numbers lie on a grid."""
    after, content = certified(models / "digits_mlp.onnx")
    assert content["class"]["level"] == "bit-exact"
    assert content["class"]["reason"].startswith("the same operations")
    model, calib = models / "digits_pruned.onnx", models / "digits_pruned.calib.npz"
    after, content = certified(model, calibration=calib)
    assert content["class"] == {"level": "statistical", "reason": "sums of 'fc1' are rounded", "premises": []}
    margin = content["data"]["margin"]
    assert 0 < margin["undecided"] < 100 < margin["observations"]
    graph, _ = run_job(model, Job(pipeline="snap-to-grid{exponent=10}", calibration=calib, verify=False))
    snapped = graph.to_onnx()
    after, content = certified(snapped)
    assert content["class"]["level"] == "bit-exact"
    assert content["class"]["reason"].startswith("all sums are exact on a grid of 2^-")
    assert content["class"]["premises"] == ["inputs without a declared range are spikes: 0 or 1"]
    assert check(snapped, after, content).holds


def test_spikes_are_exact_where_every_membrane_is_far_from_its_threshold() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(8, 6)).astype(np.float32), generator.normal(size=(4, 8)).astype(np.float32)
    first[3] = -np.abs(first[3])  # never fires
    model = mlp((6, 8, 4), weights=[first, second], steps=5)
    data = {"x": (generator.random((5, 40, 6)) < 0.5).astype(np.float32)}
    after, content = certified(model, calibration=data)
    assert content["data"]["margin"] == {"observations": 5 * 40 * 12, "undecided": 0}
    assert content["class"]["level"] == "spike-exact"
    assert check(model, after, content).holds
    # a threshold where a membrane of the samples lands: rounding might decide
    met = float(next(Observer(model).observe(data)).potential[0, :, 1].max())  # before any reset
    close = with_initializer(model, "lif1.v_threshold", np.full(8, met, np.float32))
    after, content = certified(close, calibration=data)
    assert content["data"]["margin"]["undecided"] > 0
    assert content["class"]["level"] == "statistical"


# -- changes -------------------------------------------------------------------------------


def leaves(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(content, dict):
        return [leaf for key, value in content.items() for leaf in leaves(value, (*path, key))]
    if isinstance(content, list):
        return [leaf for index, value in enumerate(content) for leaf in leaves(value, (*path, index))]
    return [path]


def changed(value: Any, generator: np.random.Generator) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + int(generator.choice([-1, 1]))
    if isinstance(value, float):
        return (
            float(np.nextafter(np.float32(value), np.float32(np.inf))) if generator.random() < 0.5 else value * 1.5 + 1
        )
    if isinstance(value, str):
        position = int(generator.integers(len(value))) if value else 0
        return value[:position] + ("x" if value[position : position + 1] != "x" else "y") + value[position + 1 :]
    return 0


def with_change(content: dict[str, Any], path: tuple[Any, ...], generator: np.random.Generator) -> dict[str, Any]:
    result = copy.deepcopy(content)
    place = result
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = changed(place[path[-1]], generator)
    return result


@pytest.fixture(scope="module")
def cases(models: Path) -> list[tuple[onnx.ModelProto, onnx.ModelProto, dict[str, Any]]]:
    chosen = (
        onnx.load(models / "digits_pruned.onnx"),
        build("gemm", planted("gemm", "always-fires"), steps=5),
        build("conv-conv", planted("conv-conv", "fires-with")),
    )
    return [(model, *certified(model)) for model in chosen]


@pytest.mark.parametrize("number", range(100))
def test_a_certificate_with_one_thing_changed_is_rejected(number: int, cases: list[Any]) -> None:
    generator = np.random.default_rng(number)
    before, after, content = cases[number % len(cases)]
    paths = leaves(content)
    path = paths[generator.integers(len(paths))]
    found = check(before, after, with_change(content, path, generator))
    assert not found.holds, path


CLAIMS = ("before", "after", "cuts", "regrouped", "refolded", "class", "witness", "raising", "unrelated")


@pytest.mark.parametrize("number", range(100))
def test_a_changed_claim_is_rejected_even_when_it_is_sealed_again(number: int, cases: list[Any]) -> None:
    generator = np.random.default_rng([1, number])
    before, after, content = cases[number % len(cases)]
    paths = [path for path in leaves(content) if path[0] in CLAIMS]
    path = paths[generator.integers(len(paths))]
    result = with_change(content, path, generator)
    result["seal"] = seal(result)
    found = check(before, after, result)
    assert not found.holds, path


@pytest.mark.parametrize("number", range(100))
def test_a_changed_result_is_rejected_even_when_the_certificate_speaks_of_it(number: int, cases: list[Any]) -> None:
    generator = np.random.default_rng([2, number])
    before, after, content = cases[number % len(cases)]
    result = onnx.ModelProto()
    result.CopyFrom(after)
    tensors = [tensor for tensor in result.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    tensor = tensors[generator.integers(len(tensors))]
    array = np.array(numpy_helper.to_array(tensor))
    place = tuple(int(generator.integers(n)) for n in array.shape)
    old = array[place]
    array[place] = np.nextafter(old, np.float32(np.inf)) if generator.random() < 0.5 else old + 3
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    spoken = {**content, "after": {"sha256": model_digest(result)}}
    spoken["seal"] = seal(spoken)
    found = check(before, result, spoken)
    assert not found.holds, (tensor.name, place)
    assert not check(before, result, content).holds


def test_results_of_broken_passes_are_not_certified(tmp_path: Path) -> None:
    """Whatever a broken pass leaves, the checker relates it to nothing, or to what it is."""
    with registered(tmp_path):
        for broken, said in (
            ("wrong-column", "do not follow from those of"),
            ("forgotten-bias", "do not follow from those of"),
            ("strict-comparison", "the raised form differs"),
        ):
            model = network(broken)
            _, content = certified(model, pipeline=broken)
            assert said in content["unrelated"]
            assert content["class"]["level"] == "statistical"
            assert content["execution"]["differing"] > 0
