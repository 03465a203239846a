"""Compress trained networks within budgets, beside the classic three passes, and print what came out.

    python tests/benchmarks/compression.py                        all networks of models/
    python tests/benchmarks/compression.py net.onnx --seeds 5     a network of yours, over five splits of the samples
    python tests/benchmarks/compression.py --corpus               pruned, wide and convolutional networks of SNN_CORPUS
    python tests/benchmarks/compression.py made/*.onnx            nets of tests/tools/make_models.py --more 3

Beside a network lie its samples, ``net.calib.npz`` and ``net.test.npz``, with labels; those of the corpus are drawn anew
(extra ``models``). Nothing is decided on the test samples. Networks ``net-1.onnx``, ``net-2.onnx``, ... are one network
trained from several seeds; their rows are means over them. Operations are effective synaptic operations per test sample (MACs and ACs). Latency is the median of
the ratio to the original at batch 1, one thread, the two taking turns. The classic passes are those of the classic
interface with its published thresholds (silent below 0.001, merged above a cosine of 0.99, fused below 0.01), unguarded.

With several seeds or splits a row is the mean over them, with standard deviations. The last lines
count the runs whose drop on the test samples is within the budget plus one standard error, which is the root of the
number of changed decisions over the number of samples; and name the worst.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
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
sys.path.insert(0, str(ROOT))
Data = Path | Dataset
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
    parser.add_argument("--budgets", type=float, nargs="+", default=BUDGETS, help="drops of accuracy, as fractions")
    parser.add_argument("--corpus", action="store_true", help="the networks of the corpus instead")
    arguments = parser.parse_args()
    heads = ["network", "method", "parameters", "non-zero", "neurons", "bytes", "operations", "latency"]
    heads += ["accuracy, calibration", "accuracy, test"]
    print("| " + " | ".join(heads) + " |")
    print("| " + " | ".join(["---", "---", *["---:"] * 8]) + " |")
    rows: list[Row] = []
    groups = corpus() if arguments.corpus else local(arguments.models or sorted((ROOT / "models").glob("*.onnx")))
    for networks in groups:
        for found in measured(networks, arguments.seeds, arguments.budgets):
            rows += found
            print(shown(found), flush=True)
    kept(rows)


def local(models: Sequence[Path]) -> Iterator[list[Network]]:
    """Yield the networks of files, those trained from several seeds together."""
    groups: dict[str, list[Path]] = {}
    for model in models:
        groups.setdefault(re.sub(r"-\d+$", "", model.stem), []).append(model)
    for name, members in groups.items():
        yield [Network(name, each, each.with_suffix(".calib.npz"), each.with_suffix(".test.npz")) for each in members]


def corpus() -> Iterator[list[Network]]:
    """Yield the networks of the corpus."""
    from tests.benchmarks.corpus_samples import COMPRESSED, corpus_samples  # needs scikit-learn

    root = Path(os.environ.get("SNN_CORPUS", ROOT.parent / "shared" / "corpus"))
    for name in COMPRESSED:
        yield [Network(name, root / name / "model.onnx", *corpus_samples(root / name))]


def measured(networks: Sequence[Network], splits: int, budgets: Sequence[float]) -> Iterator[list[Row]]:
    """Yield the rows of one network: of the classic passes, and of each budget over all seeds and splits."""
    yield [each.row("classic", None, each.classic, 0) for each in networks]
    for budget in budgets:
        yield [
            each.row(f"{budget:.2%}", budget, lambda split, b=budget, n=each: n.compressed(b, split), split)
            for each in networks
            for split in range(splits)
        ]


class Network:
    """A trained network and its samples."""

    def __init__(self, name: str, model: Path, calib: Data, test: Data) -> None:
        self.name, self.model = name, model
        self.graph, _ = run_job(model, Job(pipeline="@raise,dead-code", verify=False))
        self.session = Session(model, optimize=True)
        reader = Session(model)
        self.samples = {
            what: data if isinstance(data, Dataset) else load_dataset(data, reader.inputs)
            for what, data in (("calibration", calib), ("test", test))
        }
        self.scores = {name: score(reader, data) for name, data in self.samples.items()}
        self.costs = measure_costs(self.graph, self.samples["test"])

    def classic(self, _: int) -> SNNGraph:
        raised = self.graph.to_onnx()
        return optimize(raised, calibration=self.samples["calibration"], verify=False)[0]

    def compressed(self, budget: float, split: int) -> SNNGraph:
        samples = self.samples["calibration"]
        return run_job(
            self.model, Job(pipeline="@Oz", calibration=samples, budget=Budget(accuracy_drop=budget), seed=split)
        )[0]

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
            self.name, method, budget,
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

    def spread(name: str, places: int) -> str:
        if len(rows) < 2:
            return ""
        return f" ± {100 * statistics.stdev(getattr(row, name) for row in rows):.{places}f}"

    shares = [
        f"{mean(name):.1%}" + spread(name, 1) for name in ("parameters", "nonzero", "neurons", "bytes", "operations")
    ]
    points = [f"{100 * mean('calibration'):+.2f}", f"{100 * mean('test'):+.2f}" + spread("test", 2)]
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
