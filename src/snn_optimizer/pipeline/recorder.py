"""Keep the models that a run of a pipeline leaves, pass by pass."""

from __future__ import annotations

from snn_optimizer.ir import SNNGraph
from snn_optimizer.passes.base import Exactness
from snn_optimizer.pipeline.manager import Instrument
from snn_optimizer.pipeline.records import PassResult, PassStatus
from snn_optimizer.pipeline.spec import PassSpec

__all__ = ["Recorder"]


class Recorder(Instrument):
    """Keeps what stands after every run that changed something.

    Attributes
    ----------
    models : list of (PassResult or None, SNNGraph)
        The run and what it left, weights shared; None is for a model before any pass.
    running : PassResult or None
        The run that is on, or that raised.
    """

    def __init__(self) -> None:
        self.models: list[tuple[PassResult | None, SNNGraph]] = []
        self.running: PassResult | None = None

    def claim(self, number: int) -> Exactness:
        """Return the weakest claim of the runs that made the first ``number`` models."""
        made = [result for result, _ in self.models[:number] if result is not None]
        return max((Exactness[result.claim.upper()] for result in made), default=Exactness.BITWISE)

    def before_pass(self, number: int, spec: PassSpec, *, runs: bool) -> None:
        """Note what runs."""
        self.running = PassResult(name=spec.name, number=number, text=str(spec))

    def after_pass(self, result: PassResult, graph: SNNGraph) -> None:
        """Keep what a run left that changed something."""
        self.running = None
        if result.status is PassStatus.KEPT:
            self.models.append((result, graph.copy(share_weights=True)))
