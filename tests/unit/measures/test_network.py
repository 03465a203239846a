"""Synapses and states are those a loop over all neurons counts, for every kind of layer."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest

from snn_optimizer.ir import SNNGraph
from snn_optimizer.measures import MEASURES, measure_model
from snn_optimizer.measures.network import state_bytes
from snn_optimizer.ops import NeuronVariant
from snn_optimizer.report.costs import count_synapses
from tests.support.models import conv, initializer, mlp, recurrent


def test_a_zero_weight_is_no_synapse() -> None:
    weights = [np.ones((5, 3), np.float32), np.ones((2, 5), np.float32)]
    weights[0][:, 1] = 0
    assert count_synapses(SNNGraph.from_onnx(mlp((3, 5, 2), weights=weights))) == 10 + 10


def test_recurrent_synapses_count() -> None:
    model = recurrent()
    matrices = [t for t in model.graph.initializer if len(t.dims) == 2]
    bodies = [a.g for node in model.graph.node for a in node.attribute if a.HasField("g")]
    matrices += [t for body in bodies for t in body.initializer if len(t.dims) == 2]
    expected = sum(np.count_nonzero(onnx.numpy_helper.to_array(t)) for t in matrices)
    assert count_synapses(SNNGraph.from_onnx(model)) == expected


def test_a_convolution_connects_at_every_place() -> None:
    model = conv()
    (node,) = [n for n in model.graph.node if n.op_type == "Conv"]
    weights = initializer(model, node.input[1])
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    pads = attributes.get("pads", [0, 0, 0, 0])
    shapes = onnx.shape_inference.infer_shapes(model)
    known = {v.name: v for v in (*shapes.graph.value_info, *shapes.graph.input)}
    height, width = (d.dim_value for d in known[node.input[0]].type.tensor_type.shape.dim[2:])
    rows, columns = (d.dim_value for d in known[node.output[0]].type.tensor_type.shape.dim[2:])
    count = 0
    for y, x, i, j in itertools.product(range(rows), range(columns), *map(range, weights.shape[2:])):
        if 0 <= y + i - pads[0] < height and 0 <= x + j - pads[1] < width:
            count += np.count_nonzero(weights[:, :, i, j])
    dense = sum(
        np.count_nonzero(initializer(model, n.input[1])) for n in model.graph.node if n.op_type in {"Gemm", "MatMul"}
    )
    assert count > 0
    assert count_synapses(SNNGraph.from_onnx(model)) == count + dense


@pytest.mark.parametrize(("operator", "states"), [("LIF", 1), ("CubaLIF", 2)])
def test_states_are_membranes_and_currents(operator: str, states: int) -> None:
    graph = SNNGraph.from_onnx(mlp((3, 5, 2), variant=NeuronVariant(operator)))
    assert state_bytes(graph) == 7 * states * 4


def test_an_export_measures_what_its_network_does(models: Path) -> None:
    network = measure_model(models / "digits_mlp.onnx").values
    export = measure_model(models / "exports/digits_unrolled.onnx").values
    for name in ("parameters", "neurons", "synapses", "state-bytes"):
        assert export[name] == network[name]
    assert export["nodes"] == len(onnx.load(models / "exports/digits_unrolled.onnx").graph.node)
    assert set(network) <= set(MEASURES)
    assert "energy" not in network  # no samples, no guess


def test_samples_count_operations(models: Path) -> None:
    found = measure_model(models / "digits_mlp.onnx", models / "digits_mlp.calib.npz").values
    assert found["synaptic-operations"] == pytest.approx(45361.836, abs=1e-3)  # docs/reference/costs.md
    assert found["energy"] == pytest.approx(0.9 * found["synaptic-operations"], rel=1e-6)
    twice = measure_model(models / "digits_mlp.onnx", models / "digits_mlp.calib.npz", ac_energy=1.8).values
    assert twice["energy"] == pytest.approx(2 * found["energy"], rel=1e-6)
