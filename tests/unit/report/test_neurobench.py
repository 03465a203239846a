"""Costs are those that the harness of NeuroBench measures on the same network, built anew in PyTorch.

Where the two define something otherwise, the difference is computed and the reason stands beside it; the page
docs/reference/costs.md repeats them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from snn_optimizer.execution import Session, load_dataset
from snn_optimizer.execution.data import Dataset
from snn_optimizer.job import Job, run_job
from snn_optimizer.ops import NeuronVariant
from snn_optimizer.raised import raise_model
from snn_optimizer.report.costs import Costs, measure_costs
from tests.support.models import mlp, spike_trains

REASON = "needs the packages neurobench, snntorch and torch (extra 'neurobench')"
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
torch = pytest.importorskip("torch", reason=REASON)
snntorch = pytest.importorskip("snntorch", reason=REASON)
static = pytest.importorskip("neurobench.metrics.static", reason=REASON)
workload = pytest.importorskip("neurobench.metrics.workload", reason=REASON)

PARAMETERS = ("v0", "beta", "gain", "v_threshold", "v_reset")


class Population(torch.nn.Module):
    """A LIF layer with the arithmetic of ``ai.snn``, which resets in the step of the spike.

    snnTorch's own with ``reset_delay=False`` is another neuron: a membrane above twice the threshold is reset twice.
    """

    def __init__(self, values: dict[str, np.ndarray], name: str, kind: str) -> None:
        super().__init__()
        for each in PARAMETERS:
            self.register_buffer(each, torch.from_numpy(values[f"{name}.{each}"]))
        self.kind = kind
        self.v: Any = None

    def forward(self, current):
        v = self.v0 if self.v is None else self.v
        u = self.beta * v + current
        if self.kind == "subtract":
            spikes = (u > self.v_threshold).to(u.dtype)
            self.v = u - spikes * self.v_threshold
        else:
            spikes = (u >= self.v_threshold).to(u.dtype)
            self.v = torch.where(spikes > 0, self.v_reset.expand_as(u), u)
        return spikes


class Network(torch.nn.Sequential):
    """One step of a network of layers that follow each other."""

    def forward(self, x):
        return super().forward(x), None

    def reset(self) -> None:
        for layer in self:
            if isinstance(layer, Population):
                layer.v = None
            elif isinstance(layer, snntorch.Leaky):
                layer.reset_mem()


def initializers(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: np.array(numpy_helper.to_array(tensor)) for tensor in model.graph.initializer}


def assigned(layer, values: dict[str, np.ndarray], name: str):
    """A PyTorch layer with the initializers of that name."""
    state = {key: torch.from_numpy(values[f"{name}.{key}"]) for key in layer.state_dict() if f"{name}.{key}" in values}
    layer.load_state_dict(layer.state_dict() | state)
    return layer


def linear(values: dict[str, np.ndarray], name: str):
    units, inputs = values[f"{name}.weight"].shape
    return assigned(torch.nn.Linear(inputs, units), values, name)


def plain(values: dict[str, np.ndarray], kind: str) -> Network:
    return Network(
        linear(values, "fc1"), Population(values, "lif1", kind), linear(values, "fc2"), Population(values, "lif2", kind)
    )


def convolutional(values: dict[str, np.ndarray]) -> Network:
    nn = torch.nn
    return Network(
        assigned(nn.Conv2d(1, 12, 3, padding=1), values, "conv1"),
        Population(values, "lif1", "subtract"),
        nn.MaxPool2d(2),
        assigned(nn.Conv2d(12, 24, 3, padding=1), values, "conv2"),
        Population(values, "lif2", "subtract"),
        nn.AvgPool2d(2),
        nn.Flatten(),
        linear(values, "fc3"),
        Population(values, "lif3", "subtract"),
    )


def benchmarked(network: Network, trains: np.ndarray, labels: np.ndarray, batch: int = 64) -> tuple[dict, np.ndarray]:
    """What the harness measures, and the spikes it saw, shape (T, samples, ...)."""
    from neurobench.benchmarks import Benchmark
    from neurobench.models import SNNTorchModel

    model = SNNTorchModel(network)
    model.add_activation_module(Population)
    samples = torch.utils.data.TensorDataset(torch.from_numpy(trains.swapaxes(0, 1).copy()), torch.from_numpy(labels))
    loader = torch.utils.data.DataLoader(samples, batch_size=batch)
    seen: list[np.ndarray] = []
    metrics = [
        [static.Footprint, static.ConnectionSparsity, static.ParameterCount],
        [workload.ActivationSparsity, workload.SynapticOperations],
    ]

    def remembered(spikes):
        seen.append(spikes.detach().numpy().swapaxes(0, 1))
        return spikes

    with torch.no_grad():
        found = Benchmark(model, loader, [], [remembered], metrics).run(quiet=True)
    return found, np.concatenate(seen, axis=1)


def ours(model: Path | onnx.ModelProto, data: Dataset) -> tuple[Costs, np.ndarray]:
    outputs = [Session(model).run(batch.feeds) for batch in data.batches(64)]
    spikes = np.concatenate([next(iter(each.values())) for each in outputs], axis=1)
    return measure_costs(raise_model(model).graph, data), spikes


def agree(found: dict, costs: Costs) -> None:
    operations = found["SynapticOperations"]
    assert operations["Dense"] == pytest.approx(costs.dense, rel=1e-12)
    assert operations["Effective_MACs"] == pytest.approx(costs.effective_macs, rel=1e-12)
    assert operations["Effective_ACs"] == pytest.approx(costs.effective_acs, rel=1e-12)
    assert found["ActivationSparsity"] == pytest.approx(costs.activation_sparsity, rel=1e-12)
    assert found["ConnectionSparsity"] == round(costs.connection_sparsity, 4)  # the harness rounds
    assert costs.dense > costs.effective_macs + costs.effective_acs > 0


@pytest.mark.parametrize(("name", "kind"), [("digits_mlp", "subtract"), ("digits_pruned", "to-value")])
def test_linear_layers(models: Path, name: str, kind: str) -> None:
    path = models / f"{name}.onnx"
    data = load_dataset(models / f"{name}.calib.npz", Session(path).inputs)
    found, seen = benchmarked(plain(initializers(onnx.load(path)), kind), data.feeds["x"], data.labels)
    costs, spikes = ours(path, data)
    np.testing.assert_array_equal(seen, spikes)
    agree(found, costs)
    assert found["Footprint"] == costs.footprint
    assert costs.effective_macs == 0


def test_convolutions(models: Path) -> None:
    """On a grid of 2^-10 sums are exact in any order, so that PyTorch's convolutions give every spike of ours."""
    path = models / "digits_conv.onnx"
    data = load_dataset(models / "digits_conv.calib.npz", Session(path).inputs)
    pipeline = "layer-fusion,snap-to-grid{exponent=10}"
    model = run_job(path, Job(pipeline=pipeline, calibration=data, verify=False))[0].to_onnx()
    found, seen = benchmarked(convolutional(initializers(model)), data.feeds["x"], data.labels)
    costs, spikes = ours(model, data)
    np.testing.assert_array_equal(seen, spikes)
    agree(found, costs)
    assert found["Footprint"] == costs.footprint
    assert costs.effective_macs > 0  # the last layer reads means of spikes
    assert costs.effective_acs > 0


def test_what_kind_of_operation_it_is() -> None:
    """The harness asks at each call whether a layer reads spikes; here a layer that ever reads more multiplies."""
    model = mlp((12, 24, 5), steps=10, seed=3)
    trains = spike_trains(10, 96, 12)
    trains[1:] *= 0.5
    values = initializers(model)
    names = {f"fc{i}": node.name for i, node in enumerate((n for n in model.graph.node if n.op_type == "Gemm"), 1)}
    neurons = {f"lif{i}": n.name for i, n in enumerate((n for n in model.graph.node if n.domain == "ai.snn"), 1)}
    for new, old in (names | neurons).items():
        values |= {f"{new}{key[len(old) :]}": held for key, held in values.items() if key.startswith(f"{old}.")}
    found, seen = benchmarked(plain(values, "subtract"), trains, np.zeros(96, np.int64), batch=96)
    costs, spikes = ours(model, Dataset.from_arrays({"x": trains}, Session(model).inputs))
    np.testing.assert_array_equal(seen, spikes)
    operations = found["SynapticOperations"]
    first, second = costs.layers
    assert operations["Effective_ACs"] == pytest.approx(trains[0].sum() * 24 / 96 + second.acs, rel=1e-12)
    assert (first.acs, operations["Effective_MACs"]) == (0, pytest.approx(trains[1:].sum() * 2 * 24 / 96, rel=1e-12))
    total = operations["Effective_MACs"] + operations["Effective_ACs"]
    assert total == pytest.approx(costs.effective_macs + costs.effective_acs, rel=1e-12)


def test_neurons_of_snntorch() -> None:
    variant = NeuronVariant("LIF", reset_delay=1)
    model = mlp((12, 24, 5), steps=10, variant=variant, beta=0.9, v_threshold=1.0, seed=3)
    values = initializers(model)
    neurons = [snntorch.Leaky(beta=0.9, threshold=1.0, init_hidden=True) for _ in range(2)]
    layers = [torch.nn.Linear(12, 24), torch.nn.Linear(24, 5)]
    names = [node.name for node in model.graph.node if node.op_type == "Gemm"]
    for layer, name in zip(layers, names, strict=True):
        assigned(layer, values, name)
    network = Network(*(part for pair in zip(layers, neurons, strict=True) for part in pair))
    trains = spike_trains(10, 96, 12)
    found, seen = benchmarked(network, trains, np.zeros(96, np.int64))
    costs, spikes = ours(model, Dataset.from_arrays({"x": trains}, Session(model).inputs))
    np.testing.assert_array_equal(seen, spikes)
    agree(found, costs)
    # snnTorch stores beta, threshold, factor of graded spikes and kind of reset (8 bytes), and no initial membrane,
    # gain or reset value; these are five numbers a population here
    assert (found["Footprint"], costs.footprint) == (4 * (12 * 24 + 24 + 24 * 5 + 5) + 2 * 20, 4 * (437 + 10))
