"""Random NIR networks: read, written back bit for bit, optimized, and read again."""

from __future__ import annotations

import tempfile
from pathlib import Path

import nir
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_optimizer import optimize
from snn_optimizer.nir import Discretization, export
from tests.support.nir_networks import DT, datasets, neuron, opened, same

KINDS = ("CubaLI", "CubaLIF", "I", "IF", "LI", "LIF")


@st.composite
def networks(draw):
    """Populations in a row, with feedback, skips, sums, scales, delays, subgraphs and units that stay silent."""
    seed = draw(st.integers(0, 2**20))
    rng = np.random.default_rng(seed)
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    nodes: dict[str, nir.NIRNode] = {}
    edges: list[tuple[str, str]] = []

    def linear(size, sources):
        weight = rng.normal(0, 1.5, (size, sources)).astype(dtype)
        weight[rng.random(weight.shape) < 0.2] = 0
        if draw(st.booleans()):
            return nir.Linear(weight)
        return nir.Affine(weight, rng.normal(0, 0.3, size).astype(dtype))

    def population(kind, shape, number):
        node = neuron(kind, shape, seed + number, plain=draw(st.booleans()))
        if hasattr(node, "v_threshold") and draw(st.booleans()):
            node.v_threshold[..., 0] = 1e6  # never fires
        if draw(st.booleans()):
            node.metadata = {"layer": f"number {number}"}
        return node

    size = draw(st.integers(1, 5))
    if draw(st.booleans()):
        channels = draw(st.integers(1, 3))
        nodes["input"] = nir.Input(np.array([1, 6, 6]))
        nodes["conv"] = nir.Conv2d(
            (6, 6), rng.normal(0, 1, (channels, 1, 3, 3)).astype(dtype), (1, 1), (1, 1), (1, 1), 1,
            rng.normal(0, 0.1, channels).astype(dtype),
        )  # fmt: skip
        nodes["front"] = population(draw(st.sampled_from(["IF", "LIF"])), (channels, 6, 6), 0)
        pool = draw(st.sampled_from([nir.SumPool2d, nir.AvgPool2d]))
        nodes["pool"] = pool(np.array([2, 2]), np.array([2, 2]), np.array([0, 0]))
        nodes["flat"] = nir.Flatten({"input": np.array([channels, 3, 3])}, 0, -1)
        edges += [("input", "conv"), ("conv", "front"), ("front", "pool"), ("pool", "flat")]
        last, width = "flat", channels * 9
    else:
        nodes["input"] = nir.Input(np.array([size]))
        last, width = "input", size
    for number in range(1, draw(st.integers(1, 3)) + 1):
        size = draw(st.integers(1, 5))
        kind = draw(st.sampled_from(KINDS))
        fc, cell = f"fc{number}", f"cell{number}"
        nodes[fc], nodes[cell] = linear(size, width), population(kind, (size,), number)
        edges += [(last, fc)]
        source = fc
        if draw(st.booleans()):
            nodes[f"scale{number}"] = nir.Scale(rng.uniform(0.5, 2, size).astype(dtype))
            edges.append((source, f"scale{number}"))
            source = f"scale{number}"
        if draw(st.booleans()):
            nodes[f"late{number}"] = nir.Delay(rng.integers(0, 4, size) * DT)
            edges.append((source, f"late{number}"))
            source = f"late{number}"
        if draw(st.booleans()):
            nodes[f"rec{number}"] = linear(size, size)
            edges += [(cell, f"rec{number}"), (f"rec{number}", cell)]
        if number > 1 and draw(st.booleans()):
            nodes[f"skip{number}"] = linear(size, width)
            edges += [(last, f"skip{number}"), (f"skip{number}", cell)]
        edges.append((source, cell))
        last, width = cell, size
    nodes["output"] = nir.Output(np.array([width]))
    edges.append((last, "output"))
    return nir.NIRGraph(nodes, edges)


TIMES = st.builds(
    Discretization,
    st.just(DT),
    st.sampled_from(["euler", "exponential"]),
    st.sampled_from(["impulse", "current"]),
    st.sampled_from(["spikes", "current"]),
)


@given(networks(), TIMES)
@settings(max_examples=30)
def test_a_network_comes_back_bit_for_bit(graph, time):
    with tempfile.TemporaryDirectory() as folder:
        network = opened(graph, Path(folder), time)
        made = export(network.graph, time, network)
        assert same(datasets(Path(folder) / "net.nir"), datasets(made.data)) == []
        assert made.check.changed == 0
        assert made.check.compared
        assert not made.flattened


@given(networks(), TIMES, st.sampled_from(["O1", "O2"]))
@settings(max_examples=15)
def test_an_optimized_network_is_valid_and_runs_the_same(graph, time, level):
    with tempfile.TemporaryDirectory() as folder:
        network = opened(graph, Path(folder), time)
        smaller, report = optimize(network.graph, level=level)
        assert report.evidence.verdict in ("EQUIVALENT", "INCONCLUSIVE")
        made = export(smaller, time, network)
        assert made.check.changed <= 0.02 * made.check.compared or made.check.largest < 1e-4
        if level == "O1":
            assert same(datasets(Path(folder) / "net.nir"), datasets(made.data)) == []
        again = export(made.again.graph, time, made.again)
        assert same(datasets(made.data), datasets(again.data)) == []
