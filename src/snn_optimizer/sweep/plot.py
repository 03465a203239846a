"""The fronts as a figure: accuracy against bytes, operations and latency."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from snn_optimizer.errors import InputError
from snn_optimizer.ir.atomic import AtomicFiles
from snn_optimizer.sweep.tables import COSTS, Row

__all__ = ["draw"]

LABELS: Final = {
    "bytes": "bytes",
    "operations": "effective synaptic operations per sample",
    "latency": "run time at batch 1, original = 1",
}
MERITS: Final = {
    "accuracy_test": "accuracy, test samples",
    "accuracy_calibration": "accuracy, calibration samples",
    "decision_agreement": "share of samples decided as by the original",
}
MARKERS: Final = "osD^vPX<>p"


def draw(rows: Sequence[Row], path: Path, *, title: str, merit: str) -> None:
    """Write the figure; its format is that of the file's suffix, ``.svg`` or ``.png``.

    Raises
    ------
    InputError
        If matplotlib is not installed.
    OutputError
        If the file cannot be written.
    """
    try:
        from matplotlib import rc_context  # noqa: PLC0415 - optional, and heavy
        from matplotlib.figure import Figure  # noqa: PLC0415
        from matplotlib.ticker import PercentFormatter  # noqa: PLC0415
    except ImportError:
        raise InputError("no plot: matplotlib is not installed; pip install 'snn-optimizer[plots]'") from None
    with rc_context({"svg.hashsalt": "snnopt", "svg.fonttype": "none"}):  # the same rows give the same bytes
        figure = Figure(figsize=(15, 4.8), layout="constrained")
        for axes, cost in zip(figure.subplots(1, len(COSTS)), COSTS, strict=True):
            _panel(axes, rows, cost)
            axes.set_xlabel(LABELS[cost])
            axes.set_ylabel(MERITS[merit])
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.suptitle(title)
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4))
        image = io.BytesIO()
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(image, format=path.suffix[1:], dpi=120, metadata=metadata)
    with AtomicFiles() as files, files.open(path) as stream:
        stream.write(image.getvalue())


def _panel(axes: Any, rows: Sequence[Row], cost: str) -> None:
    placed = [row for row in rows if row.merit is not None and getattr(row.record, cost) is not None]
    for number, pipeline in enumerate(dict.fromkeys(row.record.pipeline for row in rows)):
        for sound in (True, False):
            own = [row for row in placed if row.record.pipeline == pipeline and row.record.is_sound is sound]
            if not own:
                continue
            label = (pipeline or "original") + ("" if sound else ", not to be used")
            across, up = [getattr(row.record, cost) for row in own], [row.merit for row in own]
            if pipeline:
                marker = MARKERS[(number - 1) % len(MARKERS)] if sound else "x"
                axes.plot(across, up, linestyle="", marker=marker, color=f"C{number % 10}", label=label, alpha=0.8)
            else:
                axes.plot(across, up, linestyle="", marker="*", markersize=13, color="black", label=label)
    front = sorted((getattr(row.record, cost), row.merit) for row in placed if cost in row.fronts)
    if front:
        axes.step(*zip(*front, strict=True), where="post", color="gray", linewidth=1, zorder=0, label="front")
    axes.grid(visible=True, alpha=0.3)
