"""Questions about single neurons as mixed-integer linear programs, one per time step."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx

from snn_optimizer.exact.affine import Affine
from snn_optimizer.exact.query import Answer, Question
from snn_optimizer.exact.space import Entries, describe_entries
from snn_optimizer.exact.unrolling import NotUnrolled, Target, Unrolled, unroll
from snn_optimizer.execution.observe import Observer
from snn_optimizer.ir.activity_limit import largest_activity

__all__ = ["Solver"]

Array = npt.NDArray[Any]
LAX: Final = 0.5  # relative gap at which a point is tried
STRICT: Final = 0.01  # and where the first one did not replay
FIGURE: Final = 0.5  # seconds for the bound that is shown
SOLVER: Final = 1e-6  # relative error of the solver's bounds that is allowed for
PASSES: Final = 3
TIME: Final = "the time limit was reached"
ROUNDS: Final = 40  # points that did not replay and were cut off, per step


class Solver:
    """Decides questions about the neurons of one population.

    Parameters
    ----------
    model : onnx.ModelProto
        With its weights.
    observer : Observer
        Of the same model.
    entries : sequence of Entries
        What one sample consists of.
    population : str
    question : {"can-fire", "can-stay-silent"}
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        observer: Observer,
        entries: Sequence[Entries],
        population: str,
        question: Question,
    ) -> None:
        self._model, self._observer, self._entries = model, observer, entries
        self._population, self._question = population, question
        self._known: Unrolled | None = None
        self.neurons = _count_neurons(observer, entries, population)

    def solve(self, neuron: int, time_limit: float) -> Answer:
        """Decide the question for one neuron, within so many seconds of solving."""
        start = time.perf_counter()
        inputs = describe_entries(self._entries)
        try:
            unrolled = self._unrolled(neuron)
        except NotUnrolled as error:
            return Answer(
                self._population, neuron, self._question, "not decided", "milp", reason=str(error), inputs=inputs,
                seconds=time.perf_counter() - start,
            )  # fmt: skip
        replay = _Replay(
            self._observer, self._entries, self._population, neuron, self.neurons, fires=self._question == "can-fire"
        )
        found = _Search(unrolled, replay, neuron, self._question, time.perf_counter() + time_limit).run()
        return Answer(
            self._population, neuron, self._question, found.outcome, "milp",
            step=found.step, bound=found.bound, threshold=float(unrolled.thresholds[neuron]), reason=found.reason,
            inputs=inputs, seconds=time.perf_counter() - start, witness=found.witness,
        )  # fmt: skip

    def _unrolled(self, neuron: int) -> Unrolled:
        if self._known is None or not self._known.serves_all:
            target = Target(self._population, neuron, fires=self._question == "can-stay-silent")
            self._known = unroll(self._model, self._entries, target)
        return self._known


def _count_neurons(observer: Observer, entries: Sequence[Entries], population: str) -> int:
    """Return how many neurons a population has, seen in a run."""
    still = _feeds(entries, {one.name: np.zeros(one.size) for one in entries})
    return int(np.prod(observer.trains(still)[population].shape[2:], dtype=np.int64))


def _feeds(entries: Sequence[Entries], values: Mapping[str, Array]) -> dict[str, Array]:
    """Return the feeds for values of all entries, within the domain."""
    found = {}
    for one in entries:
        array = values[one.name].reshape(one.shape)
        if one.is_spikes or one.dtype.kind != "f":
            array = np.rint(array)
        array = np.clip(array, one.low, one.high).astype(one.dtype)
        if one.fixed_batch is not None:
            array = np.repeat(array, one.fixed_batch, axis=one.batch_axis)
        found[one.name] = array
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Outcome:
    outcome: Any
    step: int | None = None
    bound: float | None = None
    reason: str = ""
    witness: Mapping[str, Array] | None = None


class _Replay:
    """Runs one sample and looks at the neuron."""

    def __init__(
        self, observer: Observer, entries: Sequence[Entries], population: str, neuron: int, size: int, *, fires: bool
    ) -> None:
        self.observer, self.entries, self.population = observer, entries, population
        self.neuron, self.size, self.fires = neuron, size, fires

    def allowed(self, feeds: Mapping[str, Array]) -> bool:
        """Tell whether an input is in the domain, activity limits included."""
        return all(
            one.limit is None or largest_activity(np.asarray(feeds[one.name])) <= one.limit for one in self.entries
        )

    def step(self, feeds: Mapping[str, Array]) -> int | None:
        """Return the first step that shows what is asked for."""
        train = self._train(feeds)[:, 0].reshape(-1, self.size)[:, self.neuron]
        shown = (train != 0) == self.fires
        return int(shown.argmax()) if shown.any() else None

    def _train(self, feeds: Mapping[str, Array]) -> Array:
        return self.observer.trains(feeds)[self.population]


class _Search:
    """Goes through the steps, early ones first: their programs are the smallest.

    A step that takes long is left open, and tried again with more time when all others are done.
    """

    def __init__(self, unrolled: Unrolled, replay: _Replay, neuron: int, question: Question, deadline: float) -> None:
        self.unrolled, self.replay, self.neuron, self.deadline = unrolled, replay, neuron, deadline
        self.sign = 1.0 if question == "can-fire" else -1.0
        self.reason = ""
        program = unrolled.program
        self._inputs = np.concatenate([*unrolled.inputs.values(), np.zeros(0, np.int64)])
        free = self._inputs[program.low[self._inputs] < program.high[self._inputs]]
        # an input that did not replay can be excluded where all of them are spikes
        self._binary = bool(
            (program.integral[free] & (program.low[free] == 0) & (program.high[free] == 1)).all() and len(free)
        )

    def run(self) -> _Outcome:
        """Return the answer."""
        total = len(self.unrolled.potentials)
        pending, extreme = list(range(total)), -np.inf
        for _ in range(PASSES):
            still: list[int] = []
            for place, step in enumerate(pending):
                left = self.deadline - time.perf_counter()
                if left <= 0:
                    self.reason = TIME
                    still.append(step)
                    continue
                potential = self.unrolled.potentials[step].gather(np.array([self.neuron]))
                found = self._decide(potential, time.perf_counter() + left / (len(pending) - place))
                if isinstance(found, _Outcome):
                    return found
                if found is None:
                    still.append(step)
                else:
                    extreme = max(extreme, found)
            pending = still
            if not pending or time.perf_counter() > self.deadline or self.reason != TIME:
                break
        if pending:
            return _Outcome("not decided", reason=f"{self.reason} ({len(pending)} of {total} steps open)")
        return _Outcome("no", bound=self.sign * extreme)

    def _decide(self, potential: Affine, deadline: float) -> _Outcome | float | None:
        """Return a witness, a bound that excludes one at this step, or None."""
        program, steps = self.unrolled.program, self.unrolled.steps
        goal = potential.scaled(self.sign, steps.unit)
        fires, rests = steps.limits(potential, self.unrolled.fire, self.unrolled.thresholds[[self.neuron]])
        needed = float(fires[0]) if self.sign > 0 else -float(rests[0])
        simple = float(program.bounds(goal)[1][0])
        if simple < needed:
            return simple
        margin = SOLVER * (1 + float(potential.magnitude[0])) + float(steps.dropped(potential.terms)[0])
        excluded: list[Array] = []
        for _ in range(ROUNDS):
            left = deadline - time.perf_counter()
            gap = LAX if not excluded else STRICT
            found = program.maximize(goal, left, gap, self._inputs, excluded, least=needed - margin)
            if found.bound < needed - margin:  # also where no such point is left
                return simple if excluded else self._bound(goal, min(left, FIGURE), simple, needed)
            if found.point is None or found.value is None:
                self.reason = TIME if found.timed_out else "the solver failed"
                return None
            if (shown := self._shown(found.point)) is not None:
                return shown
            self.reason = "an input reaches the threshold only within rounding"
            if not self._binary:
                return None
            excluded.append(found.point)
            if time.perf_counter() > deadline:
                self.reason = TIME
                return None
        return None

    def _bound(self, goal: Affine, seconds: float, simple: float, needed: float) -> float:
        """Return a bound to show: that it is below the threshold is proved already, here it gets a figure."""
        found = self.unrolled.program.maximize(goal, seconds, STRICT, self._inputs)
        return min(simple, needed, found.bound)

    def _shown(self, point: Array) -> _Outcome | None:
        values = {name: point[numbers] for name, numbers in self.unrolled.inputs.items()}
        feeds = _feeds(self.replay.entries, values)
        if not self.replay.allowed(feeds):
            return None
        step = self.replay.step(feeds)
        return None if step is None else _Outcome("yes", step=step, witness=feeds)
