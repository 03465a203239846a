"""Compress trained networks within budgets, beside the classic three passes, and print what came out.

    python tests/benchmarks/compression.py                        all networks of models/
    python tests/benchmarks/compression.py net.onnx --seeds 5     a network of yours, over five splits of the samples

Beside a network lie its samples, ``net.calib.npz`` and ``net.test.npz``, with labels. Nothing is decided on the test
samples. Operations are effective synaptic operations per test sample (MACs and ACs). Latency is the median of
the ratio to the original at batch 1, one thread, the two taking turns. The classic passes are those of the classic
interface with its published thresholds (silent below 0.001, merged above a cosine of 0.99, fused below 0.01), unguarded.

With several seeds a row is the mean over them, with the standard deviation of the test accuracy's change. The last lines
count the runs whose drop on the test samples is within the budget plus one standard error, which is the root of the
number of changed decisions over the number of samples; and name the worst.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from snn_optimizer.api import Job, optimize, run_job
from snn_optimizer.execution import Dataset, Session, load_dataset
from snn_optimizer.ir import SNNGraph
from snn_optimizer.pipeline.budget import Budget
from snn_optimizer.report.costs import measure_costs
from snn_optimizer.verification import score

ROOT = Path(__file__).resolve().parents[2]
BUDGETS = (0.0, 0.005, 0.01)
TURNS = 60


@dataclass(frozen=True)
class Row:
    """One compressed network."""

    network: str
    method: str
    budget: float | None
    parameters: float
    nonzero: float
    neurons: float
    bytes: float
    operations: float
    latency: float
    calibration: float
    test: float
    error: float


def main() -> None:
    """Print the table and, over several seeds, how the budgets were kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--seeds", type=int, default=1, help="splits of the calibration samples")
    arguments = parser.parse_args()
    models = arguments.models or sorted((ROOT / "models").glob("*.onnx"))
    heads = ["network", "method", "parameters", "non-zero", "neurons", "bytes", "operations", "latency"]
    heads += ["accuracy, calibration", "accuracy, test"]
    print("| " + " | ".join(heads) + " |")
    print("| " + " | ".join(["---", "---", *["---:"] * 8]) + " |")
    rows: list[Row] = []
    for model in models:
        for found in measured(model, arguments.seeds):
            rows += found
            print(shown(found), flush=True)
    kept(rows)


def measured(model: Path, seeds: int) -> Iterator[list[Row]]:
    """Yield the rows of one network: of the classic passes, and of each budget over all seeds."""
    network = Network(model)
    yield [network.row("classic", None, lambda _: optimize(model, calibration=network.calib, verify=False)[0], 0)]
    for budget in BUDGETS:
        yield [
            network.row(f"{budget:.1%}", budget, lambda seed, b=budget: network.compressed(b, seed), seed)
            for seed in range(seeds)
        ]


class Network:
    """A trained network and its samples."""

    def __init__(self, model: Path) -> None:
        self.model = model
        self.calib, self.test = model.with_suffix(".calib.npz"), model.with_suffix(".test.npz")
        self.graph, _ = run_job(model, Job(pipeline="@raise,dead-code", verify=False))
        self.session = Session(model, optimize=True)
        reader = Session(model)
        self.samples = {name: load_dataset(path, reader.inputs) for name, path in self._files()}
        self.scores = {name: score(reader, data) for name, data in self.samples.items()}
        self.costs = measure_costs(self.graph, self.samples["test"])

    def _files(self) -> list[tuple[str, Path]]:
        return [("calibration", self.calib), ("test", self.test)]

    def compressed(self, budget: float, seed: int) -> SNNGraph:
        job = Job(pipeline="@Oz", calibration=self.calib, budget=Budget(accuracy_drop=budget), seed=seed)
        return run_job(self.model, job)[0]

    def row(self, method: str, budget: float | None, make: Callable[[int], SNNGraph], seed: int) -> Row:
        graph = make(seed)
        session, size = Session(graph.to_onnx()), len(graph.to_onnx().SerializeToString())
        drops = {}
        error = 0.0
        for name, data in self.samples.items():
            after = score(session, data)
            drops[name] = (after.accuracy or 0) - (self.scores[name].accuracy or 0)
            if name == "test":
                error = math.sqrt(self.scores[name].decisions_changed(after) * data.samples) / data.samples
        costs = measure_costs(graph, self.samples["test"])
        before = self.costs.effective_macs + self.costs.effective_acs
        return Row(
            self.model.stem, method, budget,
            graph.total_params / self.graph.total_params,
            _nonzero(graph) / _nonzero(self.graph),
            graph.total_neurons / self.graph.total_neurons,
            size / self.model.stat().st_size,
            (costs.effective_macs + costs.effective_acs) / max(before, 1e-9),
            latency(self.session, Session(graph.to_onnx(), optimize=True), self.samples["test"]),
            drops["calibration"], drops["test"], error,
        )  # fmt: skip


def _nonzero(graph: SNNGraph) -> int:
    return sum(int(np.count_nonzero(layer.weights)) for layer in graph.layers)


def latency(before: Session, after: Session, data: Dataset) -> float:
    """Return the median ratio of run times on one sample, the two taking turns."""
    feeds = data.take(slice(0, data.fixed_batch or 1)).feeds

    def seconds(session: Session) -> float:
        start = time.perf_counter()
        session.run(feeds)
        return time.perf_counter() - start

    for session in (before, after):
        seconds(session)
    return statistics.median(seconds(after) / seconds(before) for _ in range(TURNS))


def shown(rows: list[Row]) -> str:
    """Return one line of the table: means over seeds."""

    def mean(name: str) -> float:
        return statistics.fmean(getattr(row, name) for row in rows)

    spread = f" ± {100 * statistics.stdev(row.test for row in rows):.2f}" if len(rows) > 1 else ""
    shares = [f"{mean(name):.1%}" for name in ("parameters", "nonzero", "neurons", "bytes", "operations")]
    points = [f"{100 * mean('calibration'):+.2f}", f"{100 * mean('test'):+.2f}{spread}"]
    return "| " + " | ".join([rows[0].network, rows[0].method, *shares, f"{mean('latency'):.2f}", *points]) + " |"


def kept(rows: list[Row]) -> None:
    """Print how many runs kept their budget on the test samples, and the worst."""
    budgeted = [row for row in rows if row.budget is not None]
    within = [-row.test <= row.budget + row.error + 1e-12 for row in budgeted]
    worst = max(budgeted, key=lambda row: -row.test - row.budget)
    print(f"\n{sum(within)} of {len(within)} runs within the budget plus one standard error on the test samples")
    print(f"worst: {worst.network} at {worst.method}: {100 * worst.test:+.2f} points (error {100 * worst.error:.2f})")


if __name__ == "__main__":
    main()
