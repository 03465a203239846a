"""Whether two models do the same, decided by running both."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from snn_optimizer.errors import DataError, ExecutionError, SnnOptimizerError
from snn_optimizer.execution.axes import batch_axes, time_axis
from snn_optimizer.execution.data import Dataset
from snn_optimizer.execution.observe import Observer
from snn_optimizer.execution.ort import Session
from snn_optimizer.execution.source import ModelSource, read_model, serialize
from snn_optimizer.ir.domain import InputDomain
from snn_optimizer.verification.cases import Original
from snn_optimizer.verification.compare import Level
from snn_optimizer.verification.crossings import solve_crossings
from snn_optimizer.verification.interface import interface_difference
from snn_optimizer.verification.near_ties import NearTies
from snn_optimizer.verification.seekers import QUICK, Effort, seek_thresholds
from snn_optimizer.verification.stimuli import Ranges, Stimulus, generate
from snn_optimizer.verification.ties import solve_sums
from snn_optimizer.verification.trial import Trial
from snn_optimizer.verification.verdict import Equivalence, Verdict

__all__ = ["Referee", "verify"]

Array = npt.NDArray[Any]

_PRODUCTS = 1 << 31  # weights times steps times samples of one stimulus, about
_RUNS = 16  # of one stimulus, where the model fixes how many samples a run takes


def verify(
    before: ModelSource,
    after: ModelSource,
    *,
    exactness: str = "algebraic",
    dataset: Dataset | None = None,
    stimuli: Sequence[Stimulus] | None = None,
    ranges: Ranges = None,
    seed: int = 0,
    steps: int = 16,
    batch: int | None = None,
    seekers: bool = True,
    batch_size: int = 64,
    tolerance: float = 1e-4,
) -> Equivalence:
    """Run two models on the same inputs and compare what they put out.

    The parameters are those of :class:`Referee` and of :meth:`Referee.check`.
    """
    referee = Referee(
        before,
        dataset=dataset,
        stimuli=stimuli,
        ranges=ranges,
        seed=seed,
        steps=steps,
        batch=batch,
        seekers=seekers,
        batch_size=batch_size,
        tolerance=tolerance,
    )
    return referee.check(after, exactness=exactness)


class Referee:
    """Compares candidates with one original, whose outputs are computed once.

    Both run in onnxruntime with its optimizer off, on one thread.

    Parameters
    ----------
    before : ModelProto, bytes or path
        The original.
    dataset : Dataset, optional
        The caller's data. No difference on it is excused.
    stimuli : sequence of Stimulus, optional
        Used instead of generated ones; empty for none.
    ranges : InputDomain or mapping, optional
        Declared ranges of the inputs, see :func:`~snn_optimizer.verification.stimuli.generate`.
    seed, steps : int
        Of the generated stimuli; steps where the model leaves their number open.
    batch : int, optional
        Samples of each stimulus; by default 64, fewer for large models (at least 8) and for
        models of a fixed small batch, where each sample is a run of its own.
    seekers : bool
        Whether to search for inputs that bring potentials onto thresholds. An original
        without ``ai.snn`` nodes cannot be searched; the first candidate with such nodes
        that equals it byte for byte serves as the window into it.
    batch_size : int
        Samples per run at most.
    tolerance : float
        For outputs that are not spikes, relative to the largest value of the output.
    effort : Effort
        Of the search for inputs at thresholds.
    window : ModelProto, bytes or path, optional
        The original with its neurons raised, to look inside where the original itself hides them. Used only
        where it equals the original byte for byte on everything that is run.
    """

    def __init__(
        self,
        before: ModelSource,
        *,
        dataset: Dataset | None = None,
        stimuli: Sequence[Stimulus] | None = None,
        ranges: Ranges = None,
        seed: int = 0,
        steps: int = 16,
        batch: int | None = None,
        seekers: bool = True,
        batch_size: int = 64,
        tolerance: float = 1e-4,
        effort: Effort = QUICK,
        window: ModelSource | None = None,
    ) -> None:
        self._before = before
        self._dataset = dataset
        self._stimuli = None if stimuli is None else tuple(stimuli)
        self._seed = seed
        self._steps = steps
        self._batch = batch
        self._ranges = ranges
        self._seeking = seekers
        self._batch_size = batch_size
        self._tolerance = tolerance
        self._effort = effort
        self._window = window
        self._loaded: Original | None = None
        self._original: Original | None = None
        self._failure: str | None = None
        self._known: tuple[tuple[object, ...], Equivalence] | None = None

    @property
    def original(self) -> Original | None:
        """The original and what it put out, once something was checked; None where it does not run."""
        return self._original

    def check(
        self,
        after: ModelSource,
        *,
        exactness: str = "algebraic",
        look_through: bool = True,
        left: Mapping[str, npt.NDArray[np.int64]] | None = None,
    ) -> Equivalence:
        """Compare a candidate with the original.

        Parameters
        ----------
        after : ModelProto, bytes or path
        exactness : {"bitwise", "algebraic", "profiled", "lossy"}
            ``bitwise``: all bytes equal. ``algebraic``: spikes equal, other values within
            the tolerance, near ties on stimuli excused (see
            :class:`~snn_optimizer.verification.near_ties.NearTies`). ``profiled``: the same on the caller's
            data alone, which must be there. ``lossy``: the same, on stimuli where there is no data;
            the counts tell how much changed.
        look_through : bool
            Where the original hides its neurons, search for hard inputs by way of a candidate that
            equals it so far.
        left : mapping from population name to int array, optional
            Which of its units a population still has, where some are gone.

        Raises
        ------
        InputError
            If a file cannot be read, or the caller's stimuli do not fit the model.
        """
        level = Level(str(exactness).lower())
        if isinstance(after, onnx.ModelProto):
            with contextlib.suppress(ExecutionError):  # too large: said when it is loaded
                after = serialize(after)
        if not isinstance(after, bytes):
            return self._checked(after, level, look_through, left)
        key = (hashlib.sha256(after).digest(), level, look_through)
        if self._known is None or self._known[0] != key:  # the last rewrite is often the result itself
            self._known = key, self._checked(after, level, look_through, left)
        return self._known[1]

    def _checked(
        self,
        after: ModelSource,
        level: Level,
        look_through: bool,
        left: Mapping[str, npt.NDArray[np.int64]] | None,
    ) -> Equivalence:
        if self._loaded is None and self._failure is None:
            self._load()
        if self._loaded is None:
            return Equivalence(Verdict.INCONCLUSIVE, self._failure or "", level)
        try:
            session = Session(after)
        except ExecutionError as error:
            return Equivalence(Verdict.DIFFERENT, f"the rewritten model does not load: {error}", level)
        if difference := interface_difference(self._loaded.session, session):
            return Equivalence(Verdict.DIFFERENT, difference, level)
        if self._original is None and self._failure is None:
            self._open(self._loaded)
        original = self._original
        if original is None:
            return Equivalence(Verdict.INCONCLUSIVE, self._failure or "", level)
        trial = Trial(original, session, level, NearTies(original.observer, after, left), self._tolerance)
        trial.judge(original.cases_for(level))
        hidden = original.observer is None and level in (Level.BITWISE, Level.ALGEBRAIC)
        if look_through and hidden and trial.results and trial.identical:
            self._look_through(original, after, trial)
        return trial.result()

    def _load(self) -> None:
        try:
            self._loaded = Original(Session(self._before), self._batch_size)
        except ExecutionError as error:
            self._failure = f"the original does not load: {error}"
            return
        if isinstance(self._ranges, InputDomain):
            self._ranges.forbid_unknown([port.name for port in self._loaded.session.inputs])

    def _open(self, original: Original) -> None:
        try:
            self._fill(original)
        except ExecutionError as error:
            self._failure = f"the original does not run on the data: {error}"
            return
        self._original = original

    def _fill(self, original: Original) -> None:
        observer = Observer(self._before)
        if observer.taps and observer.runs():
            original.observer = observer
        if self._dataset is not None:
            original.add("data", self._dataset, generated=False)
        if self._stimuli is None:
            try:
                original.stimuli = generate(
                    original.session.inputs,
                    steps=self._steps,
                    batch=self._batch or self._affordable_batch(original.session),
                    seed=self._seed,
                    ranges=self._ranges,
                    states=self._states(observer),
                )
            except DataError as error:
                original.notes.append(str(error))
        for stimulus in original.stimuli if self._stimuli is None else self._stimuli:
            original.add_stimulus(stimulus)
        if original.observer is None and self._window is not None:
            self._open_window(original, self._window)
        else:
            self._seek(original)

    def _states(self, observer: Observer) -> set[str]:
        """Return the inputs that are states; the raised original says it where the original hides its neurons."""
        if observer.taps or self._window is None:
            return observer.fed_states
        try:
            return Observer(self._window).fed_states
        except SnnOptimizerError:
            return set()

    def _open_window(self, original: Original, window: ModelSource) -> None:
        """Look into the original through a raised copy, as long as it proves to be one."""
        try:
            copy, observer = Session(window), Observer(window)
        except SnnOptimizerError as error:
            original.notes.append(f"the raised original does not run: {error}")
            return
        if not observer.taps or not observer.runs() or not original.equals(copy):
            return
        original.observer = observer
        self._seek(original)
        if not original.equals(copy):
            original.observer = None

    def _affordable_batch(self, session: Session) -> int:
        weights = sum(int(math.prod(tensor.dims)) for tensor in read_model(self._before)[0].graph.initializer)
        axes = batch_axes(session.inputs)
        sequences = [port.shape for port in session.inputs if time_axis(port.shape or (), axes[port.name]) == 0]
        steps = [shape[0] if shape is not None and isinstance(shape[0], int) else self._steps for shape in sequences]
        affordable = min(max(_PRODUCTS // max(1, weights * max(steps, default=1)), 8), 64)
        batches = [(port.shape or ())[axis] for port in session.inputs if (axis := axes[port.name]) is not None]
        fixed = max((size for size in batches if isinstance(size, int)), default=affordable)
        return min(affordable, _RUNS * fixed)

    def _seek(self, original: Original) -> None:
        if self._seeking and original.observer is not None:
            base = [stimulus for stimulus in original.stimuli if stimulus.name not in original.skipped]
            limits = self._limits(original)
            found = seek_thresholds(original.observer, base, seed=self._seed, effort=self._effort, limits=limits)
            if self._effort.solve_each and base:
                for solve in (solve_sums, solve_crossings):
                    found += solve(original.observer, base, seed=self._seed, limits=limits)
            for stimulus in found:
                original.add_stimulus(stimulus)

    def _limits(self, original: Original) -> dict[str, int]:
        """Return how many entries of each input may be active; a state only where it is named."""
        if not isinstance(self._ranges, InputDomain):
            return {}
        states = set() if original.observer is None else original.observer.fed_states
        names = [port.name for port in original.session.inputs]
        return self._ranges.active_limits(n for n in names if n not in states or n in self._ranges.named_active)

    def _look_through(self, original: Original, after: ModelSource, trial: Trial) -> None:
        """Use a candidate that equals the original so far to find the inputs hardest to get right."""
        observer = Observer(after)
        if not observer.taps or not observer.runs():
            return
        original.observer = observer
        known = len(original.cases)
        self._seek(original)
        trial.judge(original.cases[known:])
        if not trial.identical:
            original.observer = None
