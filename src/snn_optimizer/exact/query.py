"""Questions about single neurons, answered for every input of the declared domain."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import onnx

from snn_optimizer.errors import ExecutionError, InputError, did_you_mean
from snn_optimizer.exact.enumeration import NONE, Reachability, reachable
from snn_optimizer.exact.running import Progress
from snn_optimizer.exact.space import DEFAULT_LIMIT, InputSpace, NotEnumerable, sample_entries
from snn_optimizer.execution.data import save_arrays
from snn_optimizer.execution.observe import Observer
from snn_optimizer.ir.domain import InputDomain

__all__ = ["Answer", "Method", "Outcome", "Question", "query", "query_layer"]

Array = npt.NDArray[Any]
Question = Literal["can-fire", "can-stay-silent"]
Outcome = Literal["yes", "no", "not decided"]
Method = Literal["auto", "enumerate", "milp"]
AUTO: Final = 1 << 16  # inputs up to which trying all is quicker than formulating them


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What is known about one question.

    Attributes
    ----------
    population : str
    neuron : int
        Its number among the neurons of the population, channels before positions.
    question : {"can-fire", "can-stay-silent"}
        Whether it fires at some step of some input; whether it stays silent at some step of some input.
    outcome : {"yes", "no", "not decided"}
    method : {"enumerate", "milp"}
    step : int or None
        Where the witness shows it first.
    bound : float or None
        No potential goes beyond it before the question is settled: upwards for firing, downwards for silence.
    threshold : float or None
    reason : str
        Why it is not decided; empty otherwise.
    inputs : str
        The domain in words.
    seconds : float
    witness : mapping from input name to array, or None
        One sample, for ``yes``.
    """

    population: str
    neuron: int
    question: Question
    outcome: Outcome
    method: str
    step: int | None = None
    bound: float | None = None
    threshold: float | None = None
    reason: str = ""
    inputs: str = ""
    seconds: float = 0.0
    witness: Mapping[str, Array] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        name = f"{self.population}[{self.neuron}]"
        fires = self.question == "can-fire"
        if self.outcome == "yes":
            verb = "can fire" if fires else "can stay silent"
            return f"{name} {verb}: at step {self.step} of the witness, replayed in onnxruntime"
        if self.outcome == "not decided":
            return f"{name}: not decided whether it {'can fire' if fires else 'can stay silent'}: {self.reason}"
        verb, side = ("never fires", "at most") if fires else ("fires at every step", "at least")
        shown = "" if self.bound is None else f": its potential is {side} {self.bound:.6g}"
        limit = "" if self.bound is None or self.threshold is None else f", the threshold {self.threshold:.6g}"
        return f"{name} {verb}{shown}{limit}"

    def save_witness(self, path: Any) -> None:
        """Write the witness as an ``.npz`` file, in the form of calibration data.

        Raises
        ------
        ValueError
            If there is none.
        OutputError
            If the file cannot be written.
        """
        if self.witness is None:
            raise ValueError("there is no witness")
        save_arrays(path, {name: np.asarray(array) for name, array in self.witness.items()})

    def to_json(self) -> dict[str, object]:
        """Return the facts in JSON types."""
        return {
            "layer": self.population,
            "neuron": self.neuron,
            "question": self.question,
            "outcome": self.outcome,
            "method": self.method,
            "step": self.step,
            "bound": self.bound,
            "threshold": self.threshold,
            "reason": self.reason,
            "inputs": self.inputs,
            "seconds": round(self.seconds, 3),
        }


def query(
    model: onnx.ModelProto, population: str, neuron: int, question: Question = "can-fire", **options: Any
) -> Answer:
    """Decide a question about one neuron; the options are those of :func:`query_layer`."""
    return query_layer(model, population, [neuron], question, **options)[0]


def query_layer(
    model: onnx.ModelProto,
    population: str,
    neurons: Sequence[int] | None = None,
    question: Question = "can-fire",
    *,
    method: Method = "auto",
    domain: InputDomain | None = None,
    steps: int = 16,
    limit: int = DEFAULT_LIMIT,
    time_limit: float = 60.0,
    progress: Progress | None = None,
) -> list[Answer]:
    """Decide for neurons whether they can fire, or can stay silent at a step, for some input of the declared domain.

    Parameters
    ----------
    model : onnx.ModelProto
        In ``ai.snn`` form, with its weights.
    population : str
    neurons : sequence of int, optional
        Their numbers among the neurons of the population; all by default.
    question : {"can-fire", "can-stay-silent"}
    method : {"auto", "enumerate", "milp"}
        Try all inputs; formulate a mixed-integer linear program per neuron; or whichever is quicker.
    domain : InputDomain, optional
    steps : int
        Where the model leaves their number open.
    limit : int
        The most inputs to try.
    time_limit : float
        Seconds for the solver, per neuron.
    progress : callable, optional
        Is told how many of how many inputs, or neurons, are done.

    Raises
    ------
    InputError
        If there is no such neuron, the inputs cannot be enumerated though asked for, or scipy is missing.
    ExecutionError
        If the model does not run.
    """
    domain = domain or InputDomain()
    observer = Observer(model)
    _check_population(observer, population)
    ports, states = observer.session.inputs, observer.fed_states
    if method == "auto":
        try:
            InputSpace(ports, domain, steps=steps, states=states, limit=min(limit, AUTO))
            method = "enumerate"
        except NotEnumerable as error:
            if error.reason not in ("too-many-inputs", "real-values", "ranges-differ"):
                raise
            method = "milp"
    if method == "enumerate":
        start = time.perf_counter()
        space, found = reachable(model, domain=domain, steps=steps, limit=limit, progress=progress)
        if population not in found:
            raise ExecutionError(f"the spikes of layer '{population}' cannot be observed")
        one = found[population]
        chosen = range(len(one.fires)) if neurons is None else neurons
        _check_neurons(population, chosen, len(one.fires))
        return [_enumerated(space, one, n, question, time.perf_counter() - start) for n in chosen]
    solver = _solver_module().Solver(
        model, observer, sample_entries(ports, domain, steps, states), population, question
    )
    chosen = range(solver.neurons) if neurons is None else neurons
    _check_neurons(population, chosen, solver.neurons)
    answers: list[Answer] = []
    for neuron in chosen:
        answers.append(solver.solve(neuron, time_limit))
        if progress is not None:
            progress(len(answers), len(chosen))
    return answers


def _check_population(observer: Observer, population: str) -> None:
    known = [tap.population for tap in observer.taps if tap.variant.spiking]
    if population in known:
        return
    if any(tap.population == population for tap in observer.taps):
        raise InputError(f"layer '{population}' is a readout, its neurons do not fire")
    listed = ", ".join(known) or "none"
    raise InputError(f"no layer '{population}'; layers that fire: {listed}{did_you_mean(population, known)}")


def _check_neurons(population: str, neurons: Sequence[int], size: int) -> None:
    for neuron in neurons:
        if not 0 <= neuron < size:
            raise InputError(f"layer '{population}' has neurons 0 to {size - 1}, not {neuron}")


def _solver_module() -> Any:
    try:
        from snn_optimizer.exact import solving  # noqa: PLC0415 - needs an extra
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("scipy"):
            raise
        raise InputError("--method milp needs scipy: pip install 'snn-optimizer[exact]'") from None
    return solving


def _enumerated(space: InputSpace, one: Reachability, neuron: int, question: Question, seconds: float) -> Answer:
    fires = question == "can-fire"
    number = int((one.fires if fires else one.rests)[neuron])
    shown = number != NONE
    return Answer(
        one.population, neuron, question, "yes" if shown else "no", "enumerate",
        step=int((one.fires_at if fires else one.rests_at)[neuron]) if shown else None,
        bound=None if shown else float((one.peak if fires else one.trough)[neuron]),
        threshold=float(one.threshold[neuron]),
        inputs=space.describe(),
        seconds=seconds,
        witness=space.feeds(np.full(space.samples_per_run or 1, number)) if shown else None,
    )  # fmt: skip
