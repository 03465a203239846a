"""Measures an exported model in ONNX Runtime and holds it against the PyTorch network it came from."""

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import torch
from digits_data import Floats, Labels
from digits_networks import Recurrent
from onnx import TensorProto, helper
from spiking_training import Network, Population


@dataclass(frozen=True, slots=True)
class Agreement:
    """How an exported model differs from PyTorch on the same input."""

    readout_differs: int
    readout_elements: int
    decisions_differ: int
    largest_difference: float
    population_differs: dict[str, int]

    def __str__(self) -> str:
        populations = ", ".join(f"{name} {count}" for name, count in self.population_differs.items())
        return (
            f"{self.readout_differs} of {self.readout_elements} readout elements differ, by at most "
            f"{self.largest_difference:.1e}, and {self.decisions_differ} decisions; "
            f"on equal currents: {populations}"
        )


def run(model: onnx.ModelProto, x: Floats, outputs: list[str] | None = None) -> list[np.ndarray]:
    """Run a model in stock onnxruntime on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(outputs, {"x": x})


def accuracy(model: onnx.ModelProto, x: Floats, labels: Labels) -> float:
    """Return the share of samples whose largest readout sum over time is their label."""
    (readout,) = run(model, x)
    return float((readout.sum(axis=0).argmax(axis=1) == labels).mean())


def check_file(model: onnx.ModelProto) -> None:
    """Check the model with strict shape inference, its names, and other batch sizes and times."""
    onnx.checker.check_model(model, full_check=True)
    names = [node.name for node in model.graph.node]
    if not all(names) or len(set(names)) != len(names):
        raise ValueError(f"{model.graph.name}: node names are missing or repeated")
    (taken,) = model.graph.input
    (given,) = model.graph.output
    dims = [dim.dim_value for dim in taken.type.tensor_type.shape.dim]
    for batch, time in ((1, 5), (3, 16)):
        steps = dims[0] or time
        x = np.ones((steps, batch, *dims[2:]), np.float32)
        (readout,) = run(model, x)
        expected = (steps, batch, given.type.tensor_type.shape.dim[2].dim_value)
        if readout.shape != expected:
            raise ValueError(f"{model.graph.name}: {given.name} is {readout.shape}, not {expected}")


def population_outputs(model: onnx.ModelProto, network: Network, x: Floats) -> dict[str, tuple[Floats, Floats]]:
    """Return the currents into and the train out of every population, run inside the exported model."""
    names = [name for name, module in network.named_modules() if isinstance(module, Population)]
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    written = {value for node in model.graph.node for value in node.output}
    trains = [f"{name}.spikes" if f"{name}.spikes" in written else model.graph.output[0].name for name in names]
    wanted = [*(f"{name}.current" for name in names), *trains]
    present = {output.name for output in model.graph.output}
    exposed.graph.output.extend(
        helper.make_tensor_value_info(value, TensorProto.FLOAT, None) for value in wanted if value not in present
    )
    values = run(exposed, x, wanted)
    return dict(zip(names, zip(values[: len(names)], values[len(names) :], strict=True), strict=True))


@torch.no_grad()
def compare(model: onnx.ModelProto, network: Network, x: Floats) -> Agreement:
    """Compare whole runs, then every population by itself on the currents ONNX Runtime computed.

    The second comparison separates the neurons, which must agree to the bit, from the projections, whose
    sums the two libraries round in different orders.
    """
    (readout,) = run(model, x)
    counts, traces = network.decide(torch.from_numpy(x))
    ours = next(reversed(traces.values())).numpy()
    differs = {}
    for name, (currents, train) in population_outputs(model, network, x).items():
        recurrent = isinstance(network, Recurrent) and name == "lif1"
        population = network.walk if recurrent else network.get_submodule(name)
        expected = population(torch.from_numpy(currents))
        differs[name] = int((expected.numpy() != train).sum())
    return Agreement(
        readout_differs=int((ours != readout).sum()),
        readout_elements=readout.size,
        largest_difference=float(np.abs(ours - readout).max()),
        decisions_differ=int((readout.sum(axis=0).argmax(axis=1) != counts.argmax(dim=1).numpy()).sum()),
        population_differs=differs,
    )


def silent_counts(outputs: dict[str, tuple[Floats, Floats]], network: Network) -> dict[str, int]:
    """Return how many neurons of each spiking population never fire in what `population_outputs` gave."""
    return {
        name: int((~train.any(axis=(0, 1))).sum())
        for name, (_, train) in outputs.items()
        if network.get_submodule(name).dynamics.operator != "LI"
    }
