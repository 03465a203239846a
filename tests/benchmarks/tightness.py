"""How much of the truth the analyses prove: neurons that never fire and that always fire, against all inputs.

    python tests/benchmarks/tightness.py            print the tables
    python tests/benchmarks/tightness.py --docs     and put them into docs/reference/benchmarks.md

Small networks are cut out of the models in models/: a few inputs (those of the largest weights), neurons and steps, so
that every input can be tried. Random networks come from tests/support/tiny_networks.py. The last columns ask programs
(`snnopt query --method milp`) about the neurons that are silent or always on and not proved to be.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from snn_optimizer.analyses import AnalysisManager, NeuronFacts, ValueRanges  # noqa: E402 - the path is set above
from snn_optimizer.exact.enumeration import Reachability, reachable  # noqa: E402
from snn_optimizer.exact.query import Question, query  # noqa: E402
from snn_optimizer.ir import InputDomain, LayerNode, Module, SNNGraph, array_of  # noqa: E402
from tests.support.tiny_networks import Layer, network, random_layers  # noqa: E402

DOCUMENT = ROOT / "docs" / "reference" / "benchmarks.md"
BEGIN, END = "<!-- tightness: begin -->", "<!-- tightness: end -->"
MODELS = ("digits_mlp", "digits_pruned", "digits_recurrent", "digits_cuba", "digits_wide")
INPUTS, STEPS, UNITS = 4, 4, 64
SCALE = 4.0  # of the weights of the first layer of a part: few of its inputs are left to drive it
NETWORKS = 60
ASKED = 20  # neurons of one row that programs are asked about
TIME_LIMIT = 5.0


@dataclass
class Row:
    """Counts of one layer, or of the layers of several networks."""

    name: str
    neurons: int = 0
    silent: int = 0
    proved_silent: int = 0
    always: int = 0
    proved_always: int = 0
    ratios: list[float] = field(default_factory=list)
    asked: int = 0
    solved: int = 0
    seconds: float = 0.0

    def add(self, model: onnx.ModelProto, facts: NeuronFacts, truth: Reachability, domain: InputDomain) -> None:
        """Count a population; a claim that is not true stops everything."""
        shape = truth.never.shape
        never, always, highest = (np.broadcast_to(a, shape) for a in (facts.never, facts.always, facts.highest))
        if (never & ~truth.never).any() or (always & ~truth.always).any():
            raise SystemExit(f"{self.name}: '{truth.population}' is claimed to do what it does not")
        self.neurons += never.size
        self.silent += int(truth.never.sum())
        self.proved_silent += int(never.sum())
        self.always += int(truth.always.sum())
        self.proved_always += int(always.sum())
        shown = truth.never & (truth.peak > 0) & np.isfinite(highest)
        self.ratios += (highest[shown] / truth.peak[shown]).tolist()
        self._ask(model, truth, np.flatnonzero(truth.never & ~never), "can-fire", domain)
        self._ask(model, truth, np.flatnonzero(truth.always & ~always), "can-stay-silent", domain)

    def _ask(
        self, model: onnx.ModelProto, truth: Reachability, neurons: np.ndarray, question: Question, domain: InputDomain
    ) -> None:
        for neuron in neurons[: max(0, ASKED - self.asked)].tolist():
            start = time.perf_counter()
            answer = query(
                model, truth.population, neuron, question, method="milp", domain=domain, time_limit=TIME_LIMIT
            )
            if answer.outcome == "yes":
                raise SystemExit(f"{self.name}: {answer}, which no input shows")
            self.asked += 1
            self.solved += answer.outcome == "no"
            self.seconds += time.perf_counter() - start

    def cells(self) -> list[str]:
        """Return the row of the table."""
        ratio = f"{np.mean(self.ratios):.2f}" if self.ratios else "-"
        solved = f"{self.solved} of {self.asked}" if self.asked else "-"
        seconds = f"{self.seconds / self.asked:.2f}" if self.asked else "-"
        return [
            self.name, f"{self.neurons:,}", f"{self.silent:,}", f"{self.proved_silent:,}",
            _share(self.proved_silent, self.silent), f"{self.always:,}", f"{self.proved_always:,}",
            _share(self.proved_always, self.always), ratio, solved, seconds,
        ]  # fmt: skip


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "-"


def parts(name: str) -> list[Layer]:
    """Return a small network out of a model: few inputs, at most so many neurons of each layer."""
    graph = SNNGraph.from_onnx(ROOT / "models" / f"{name}.onnx")
    layers = [layer for layer in graph.layers if layer.neuron_type != "LI"]
    chosen = np.sort(np.argsort(-np.abs(_matrices(layers[0])[0]).sum(axis=0), kind="stable")[:INPUTS])
    found = []
    for number, layer in enumerate(layers):
        matrices = _matrices(layer)
        units = np.arange(min(UNITS, layer.n_neurons))
        found.append(_part(layer, matrices, units, chosen, SCALE if number == 0 else len(matrices[0].T) / len(chosen)))
        chosen = units
    return found


def _matrices(layer: LayerNode) -> list[np.ndarray]:
    """Return the weights of a layer as (neurons, inputs): from the layer before, and from itself."""
    return [p.as_matrix(np.asarray(array_of(p.node.inputs[p.weight_slot]))) for p in layer.projections]


def _part(layer: LayerNode, matrices: list[np.ndarray], units: np.ndarray, inputs: np.ndarray, scale: float) -> Layer:
    weights = matrices[0][np.ix_(units, inputs)]
    lateral = matrices[1][np.ix_(units, units)] if len(matrices) > 1 else None

    def own(name: str, default: float) -> np.ndarray:
        value = layer.parameter(name)
        array = np.asarray(default if value is None else value, np.float32)
        return array[units] if array.size > 1 else array.reshape(())

    bias = layer.bias
    return Layer(
        (weights * scale).astype(np.float32),
        np.zeros(len(units), np.float32) if bias is None else np.asarray(bias, np.float32)[units],
        beta=own("beta", 1.0), threshold=own("v_threshold", 1.0), v_reset=own("v_reset", 0.0),
        alpha=own("alpha", 0.5), gain=own("gain", 1.0), lateral=lateral,
        variant=replace(layer.variant.as_form("sequence"), record=""),
    )  # fmt: skip


def measured(name: str, layers: Sequence[Layer], steps: int, domain: InputDomain, rows: dict[str, Row]) -> None:
    """Compare facts and truth of one network; its layers are counted in rows of their own."""
    model = network(layers, steps)
    module = Module.load(model)
    facts = AnalysisManager(module, domain).get(ValueRanges).facts
    nodes = {n.name: n for scope in module.scopes() if scope.kind != "function" for n in scope.graph.nodes}
    for number, truth in enumerate(reachable(model, domain=domain)[1].values(), start=1):
        row = rows.setdefault(f"{name}{number}", Row(f"{name}, layer {number}"))
        row.add(model, facts[id(nodes[truth.population])], truth, domain)


def tables() -> Iterator[Row]:
    """Measure everything."""
    for name in MODELS:
        for limit in (None, 1):
            rows: dict[str, Row] = {}
            label = name if limit is None else f"{name}, at most {limit} active"
            measured(label, parts(name), STEPS, InputDomain(max_active=limit), rows)
            yield from rows.values()
    for recurrent in (False, True):
        rows = {}
        for seed in range(NETWORKS):
            generator = np.random.default_rng(seed)
            layers = random_layers(generator, 3, depth=3, recurrent=recurrent)
            label = f"{NETWORKS} random{' recurrent' if recurrent else ''} networks"
            measured(label, layers, STEPS, InputDomain(), rows)
        yield from rows.values()


HEADER = [
    "network", "neurons", "silent", "proved", "share", "always on", "proved", "share", "bound / largest", "MILP proves",
    "s each",
]  # fmt: skip


def main() -> None:
    """Print the table, and update the document on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", action="store_true", help="put the table into docs/reference/benchmarks.md")
    arguments = parser.parse_args()
    lines = ["| " + " | ".join(HEADER) + " |", "| --- |" + " ---: |" * (len(HEADER) - 1)]
    print("\n".join(lines))
    for row in tables():
        lines.append("| " + " | ".join(row.cells()) + " |")
        print(lines[-1], flush=True)
    if arguments.docs:
        old = DOCUMENT.read_text()
        start, stop = old.index(BEGIN) + len(BEGIN), old.index(END)
        DOCUMENT.write_text(f"{old[:start]}\n" + "\n".join(lines) + f"\n{old[stop:]}")


if __name__ == "__main__":
    main()
