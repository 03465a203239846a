"""Every kind of change is found and named, and two spellings of one network are one network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from snn_optimizer.difference import Difference, compare, compare_models
from snn_optimizer.ops import NeuronVariant
from tests.support.models import LIF, conv, initializer, mlp, recurrent, with_initializer


def compared(tmp_path: Path, before: onnx.ModelProto, after: onnx.ModelProto) -> Difference:
    for name, model in (("a", before), ("b", after)):
        (tmp_path / f"{name}.onnx").write_bytes(model.SerializeToString())
    return compare_models(tmp_path / "a.onnx", tmp_path / "b.onnx")


def statuses(found: Difference) -> dict[str, str]:
    return {layer.name: layer.status for layer in found.layers}


def renamed(model: onnx.ModelProto, old: str, new: str) -> onnx.ModelProto:
    """The same model with other names of nodes, values and constants."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    kept = {v.name for v in (*copy.graph.input, *copy.graph.output)}
    for node in copy.graph.node:
        node.name = node.name.replace(old, new)
        for names in (node.input, node.output):
            names[:] = [name if name in kept else name.replace(old, new) for name in names]
    for tensor in copy.graph.initializer:
        tensor.name = tensor.name.replace(old, new)
    return copy


@pytest.mark.parametrize("model", [mlp(), conv(), recurrent()], ids=["mlp", "conv", "recurrent"])
def test_a_model_is_the_same_as_itself(model: onnx.ModelProto, tmp_path: Path) -> None:
    found = compared(tmp_path, model, model)
    assert found.same_network
    assert found.same_file
    assert set(statuses(found).values()) == {"same"}
    assert (found.operators, found.interface) == ((), ())


def test_names_are_no_difference_of_networks(tmp_path: Path) -> None:
    found = compared(tmp_path, mlp(), renamed(mlp(), "lif", "pop"))
    assert found.same_network
    assert not found.same_file
    assert statuses(found) == {"pop1": "renamed", "pop2": "renamed"}


def test_changed_weights_are_counted(tmp_path: Path) -> None:
    model = mlp()
    name = next(t.name for t in model.graph.initializer if list(t.dims) == [16, 8])
    weights = initializer(model, name).copy()
    weights[3, :2] += np.float32(0.5)
    found = compared(tmp_path, model, with_initializer(model, name, weights))
    assert not found.same_network
    assert statuses(found) == {"lif1": "changed", "lif2": "same"}
    (change,) = found.layers[0].tensors
    assert (change.name, change.changed, change.elements) == ("weights", 2, 128)
    assert change.largest == pytest.approx(0.5, abs=1e-6)


def test_thresholds_and_decays(tmp_path: Path) -> None:
    found = compared(tmp_path, mlp(), mlp(v_threshold=1.25, beta=np.linspace(0.5, 0.75, 1)))
    changes = {change.name: change for change in found.layers[0].tensors}
    assert set(changes) == {"v_threshold", "beta"}
    assert (changes["v_threshold"].before, changes["v_threshold"].after) == ("1", "1.25")
    assert changes["beta"].largest == pytest.approx(0.25)


def test_one_for_all_and_one_for_each_are_the_same_layer(tmp_path: Path) -> None:
    found = compared(tmp_path, mlp((8, 16)), mlp((8, 16), v_threshold=np.ones(16)))
    assert statuses(found) == {"lif1": "same"}
    assert not found.same_network  # the files compute alike, and are not the same graph: it does not claim to know


def test_kinds_of_neurons(tmp_path: Path) -> None:
    found = compared(tmp_path, mlp(), mlp(variant=replace(LIF, reset="to-value", fire="ge")))
    assert found.layers[0].kind == (("reset", "subtract", "to-value"), ("fire", "gt", "ge"))
    found = compared(tmp_path, mlp(), mlp(variant=NeuronVariant("CubaLIF")))
    assert ("operator", "LIF", "CubaLIF") in found.layers[0].kind
    assert "alpha" in {change.name for change in found.layers[0].tensors}


def test_sizes(tmp_path: Path) -> None:
    found = compared(tmp_path, mlp((8, 16, 4)), mlp((8, 12, 4)))
    first = found.layers[0]
    assert first.before is not None
    assert first.after is not None
    assert (first.before.neurons, first.after.neurons) == (16, 12)
    assert {c.name: (c.before, c.after, c.changed) for c in first.tensors}["weights"] == ("16x8", "12x8", None)
    assert found.measures[0]["neurons"] - found.measures[1]["neurons"] == 4


def test_a_layer_in_front_does_not_shift_the_others(tmp_path: Path) -> None:
    def square(seed: int) -> np.ndarray:
        return np.random.default_rng(seed).normal(size=(8, 8)).astype(np.float32)

    two = mlp((8, 8, 8), weights=[square(1), square(2)])
    three = mlp((8, 8, 8, 8), weights=[square(0), square(1), square(2)])
    found = compared(tmp_path, two, three)
    assert [(layer.status, layer.name) for layer in found.layers] == [
        ("added", "lif1"), ("renamed", "lif2"), ("renamed", "lif3"),
    ]  # fmt: skip
    found = compared(tmp_path, three, two)
    assert [(layer.status, layer.name) for layer in found.layers] == [
        ("removed", "lif1"), ("renamed", "lif1"), ("renamed", "lif2"),
    ]  # fmt: skip


def test_constants_between_the_layers(models: Path, tmp_path: Path) -> None:
    model = onnx.load(models / "digits_conv.onnx")
    node = next(n for n in model.graph.node if n.op_type == "BatchNormalization")
    scale = initializer(model, node.input[1])
    found = compared(tmp_path, model, with_initializer(model, node.input[1], scale * np.float32(1.5)))
    assert set(statuses(found).values()) == {"same"}
    assert not found.same_network
    assert [(c.op, c.before, c.after, c.constants) for c in found.operators] == [("BatchNormalization", 2, 2, 2)]


def test_wiring(models: Path, tmp_path: Path) -> None:
    """The inputs of a subtraction in another order: the same operators and constants, not the same network."""
    model = onnx.load(models / "digits_residual.onnx")
    changed = onnx.ModelProto.FromString(model.SerializeToString())
    node = next(n for n in changed.graph.node if n.op_type == "Add")
    node.op_type = "Sub"
    other = onnx.ModelProto.FromString(changed.SerializeToString())
    swapped = next(n for n in other.graph.node if n.op_type == "Sub")
    swapped.input[:] = list(swapped.input)[::-1]
    found = compared(tmp_path, changed, other)
    assert not found.same_network
    assert found.operators == ()


def test_the_interface(tmp_path: Path) -> None:
    found = compared(tmp_path, mlp(steps="T"), mlp(steps=5))
    assert found.interface[0] == ("input x [T, batch, 8] float32", "input x [5, batch, 8] float32")
    assert not found.same_network


def test_identities_and_written_defaults_are_no_difference(tmp_path: Path) -> None:
    model = mlp()
    other = onnx.ModelProto.FromString(model.SerializeToString())
    place, node = next((n, x) for n, x in enumerate(other.graph.node) if x.op_type == "Gemm")
    node.attribute.append(onnx.helper.make_attribute("transA", 0))
    other.graph.node.insert(place, onnx.helper.make_node("Identity", [node.input[0]], ["same"]))
    other.graph.node[place + 1].input[0] = "same"
    found = compared(tmp_path, model, other)
    assert found.same_network
    assert found.operators == ()
    other.graph.node[place + 1].attribute.append(onnx.helper.make_attribute("alpha", 2.0))
    assert not compared(tmp_path, model, other).same_network


def test_two_exporters_of_one_network(corpus: Path) -> None:
    exports = [corpus / f"snntorch_leaky_sub_rate_T25__{one}" / "model.onnx" for one in ("dynamo", "ts", "ts_opset13")]
    for other in exports[1:]:
        found = compare_models(exports[0], other)
        assert (found.same_network, found.same_file) == (True, False)


def test_nothing_is_not_a_number(tmp_path: Path) -> None:
    """A NaN in the same place of both is no difference."""
    model = mlp()
    name = next(t.name for t in model.graph.initializer if list(t.dims) == [16, 8])
    weights = initializer(model, name).copy()
    weights[0, 0] = np.nan
    broken = with_initializer(model, name, weights)
    assert numpy_helper.to_array(next(t for t in broken.graph.initializer if t.name == name))[0, 0] != 0
    weights = weights.copy()
    weights[1, 1] = 0
    found = compared(tmp_path, broken, with_initializer(model, name, weights))
    assert found.layers[0].tensors[0].changed == 1
    (change,) = compared(tmp_path, broken, model).layers[0].tensors
    assert np.isnan(change.largest)
    assert change.to_json()["largest"] is None


@pytest.mark.parametrize("chunk", [1, 40, 1000])
def test_weights_are_compared_in_pieces(chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "_CHUNK", chunk)
    model = mlp()
    name = next(t.name for t in model.graph.initializer if list(t.dims) == [16, 8])
    weights = initializer(model, name).copy()
    weights[0, 0] += np.float32(0.25)
    weights[9, 3] -= np.float32(0.5)
    weights[15, 7] += np.float32(0.125)
    (change,) = compared(tmp_path, model, with_initializer(model, name, weights)).layers[0].tensors
    assert (change.changed, change.elements) == (3, 128)
    assert change.largest == pytest.approx(0.5, abs=1e-6)
