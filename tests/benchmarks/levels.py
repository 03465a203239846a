"""Optimize every model in models/ at every level and print what came out as a Markdown table.

    python tests/benchmarks/levels.py            print the table
    python tests/benchmarks/levels.py --readme   and put it into README.md

Spikes changed and accuracy are measured on the test samples, which no level sees.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from snn_optimizer.api import Job, run_job
from snn_optimizer.execution import Session
from snn_optimizer.pipeline.budget import Budget

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- levels: begin -->", "<!-- levels: end -->"
LEVELS = ("O1", "O2", "O3", "Oz")
BUDGET = 0.01


def measure(model: Path, level: str) -> list[str]:
    """Return one row of the table; the written file must load in stock onnxruntime."""
    base = model.with_suffix("")
    budget = Budget(accuracy_drop=BUDGET) if level == "Oz" else Budget()
    job = Job(
        pipeline=f"@{level}",
        calibration=f"{base}.calib.npz" if level in {"O3", "Oz"} else None,
        test=f"{base}.test.npz",
        budget=budget,
    )
    graph, report = run_job(model, job)
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / model.name
        stored = graph.save(written)
        Session(written, optimize=True)
    before, after = report.before, report.after
    spiking = graph.layers[-1].variant.spiking
    name = base.name if level == LEVELS[0] else ""
    return [
        name,
        f"`-{level}`",
        f"{before.neurons:,} → {after.neurons:,}",
        f"{before.params:,} → {after.params:,}",
        f"{before.bytes:,} → {stored:,}",
        f"{report.outputs_changed:.2%}" if spiking else f"{report.outputs_changed:.0%} of membranes",
        f"{report.accuracy_before:.2%} → {report.accuracy_after:.2%}",
        report.evidence.verdict
        if level != "Oz"
        else "within the budget"
        if report.exactness == "lossy"
        else report.evidence.verdict,
    ]


def table(models: list[Path]) -> str:
    """Return the whole table."""
    header = ["model", "level", "neurons", "parameters", "bytes", "spikes changed", "test accuracy", "verdict"]
    rows = [header, ["---", "---", *["---:"] * 5, "---"]]
    rows += [measure(model, level) for model in models for level in LEVELS]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    """Print the table, and update the README on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readme", action="store_true", help="put the table into README.md")
    parser.add_argument("--only", nargs="*", help="names of models")
    arguments = parser.parse_args()
    models = [p for p in sorted((ROOT / "models").glob("*.onnx")) if not arguments.only or p.stem in arguments.only]
    text = table(models)
    print(text)
    if arguments.readme:
        readme = ROOT / "README.md"
        old = readme.read_text()
        start, stop = old.index(BEGIN) + len(BEGIN), old.index(END)
        readme.write_text(f"{old[:start]}\n{text}\n{old[stop:]}")


if __name__ == "__main__":
    main()
