"""``--report out.html``: what the command line knows of a run, handed to the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snn_optimizer.cli.invocation import invocation

if TYPE_CHECKING:
    import onnx

    from snn_optimizer.api import Job
    from snn_optimizer.ir import SNNGraph
    from snn_optimizer.report import OptimizationReport

__all__ = ["html_page", "result_keeper"]


def result_keeper() -> Any:
    """Return an instrument whose ``graph`` is the network after the last pass, before it is written in another form."""
    from snn_optimizer.pipeline.manager import Instrument  # noqa: PLC0415 - heavy

    class Keeper(Instrument):
        """Keeps hold of the network."""

        graph: SNNGraph | None = None

        def after_pass(self, result: Any, graph: SNNGraph) -> None:
            self.graph = graph

    return Keeper()


def html_page(
    report: OptimizationReport,
    model: Path | onnx.ModelProto,
    result: SNNGraph,
    job: Job,
    progress: Callable[[str, int, int], None],
) -> str:
    """Return the page of a run."""
    from snn_optimizer.api import raise_model  # noqa: PLC0415 - heavy
    from snn_optimizer.execution import Session, model_digest  # noqa: PLC0415
    from snn_optimizer.ir import SNNGraph  # noqa: PLC0415
    from snn_optimizer.job import dataset_of  # noqa: PLC0415
    from snn_optimizer.report.html import Sources, gather, render  # noqa: PLC0415

    before, note = SNNGraph.from_onnx(model), ""
    if not before.layers and result.layers:
        nodes = before.module.count_nodes()
        before = raise_model(model, job.frontend).graph
        note = f"The file has {nodes:,} nodes and no neuron operators; shown as before is the network found in it."
    given = [(job.calibration, "calibration"), (job.test, "test")]
    data, kind = next(((data, kind) for data, kind in given if data is not None), (None, ""))
    sources = Sources(
        data=None if data is None else dataset_of(data, Session(model), kind),
        data_name="" if data is None else f"{kind} data, '{Path(str(data)).name}'",
        command=invocation().command,
        digest=model_digest(model),
        note=note,
        domain=job.domain,
        seed=job.seed,
    )
    return render(gather(report, before, result, sources, progress=progress), progress=progress)
