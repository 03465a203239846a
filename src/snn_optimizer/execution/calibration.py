"""Measuring what products of spikes with weights cost on this machine, dense and event-driven.

Every point is the time of a model with that product and a bias, less the time of a model that does next to nothing
with the same input, so that what a call of the runtime costs is in no number. Inputs are drawn anew for the calls of
one measurement, because the same spikes again would find their rows of weights in the nearest cache.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from snn_optimizer.errors import InputError
from snn_optimizer.execution.ort import Session
from snn_optimizer.execution.timing import in_turns
from snn_optimizer.ir import Module, Rewriter, ValueSpec
from snn_optimizer.ir.gathered_products import GatheredProducts
from snn_optimizer.projection_costs import ProjectionCosts, this_machine

__all__ = ["ROWS", "SHARES", "SIZES", "calibrate"]

SIZES: Final = (64, 256, 1024, 4096)
ROWS: Final = (1, 8, 64, 256)
SHARES: Final = (0.0, 0.01, 0.03, 0.1, 0.3)
ROUNDS: Final = 12
SWEEPS: Final = 3  # over the whole grid, so that no point is measured within one disturbance

_DRAWS = 6  # inputs that the calls of a measurement cycle through
_DENSE_SHARE = 0.1  # of the input of the dense form, which takes the same time for all
_HOPELESS = 3.0  # times the dense form; what is slower is not measured at larger shares
_SHORTEST = 0.001
_UNDISTURBED = 0.25
_LEAST = 1e-7  # seconds; a difference of two measurements is not negative

Array = npt.NDArray[Any]


@dataclass(slots=True)
class _Runs:
    """The models of one shape of weights, loaded."""

    inputs: int
    outputs: int
    threads: int
    generator: np.random.Generator
    sessions: dict[str, Session] = field(default_factory=dict)

    def session(self, form: str) -> Session:
        """Return a loaded model of a form."""
        if form not in self.sessions:
            model = _model(form, self.inputs, self.outputs, self.generator).to_proto()
            self.sessions[form] = Session(model, optimize=True, threads=self.threads)
        return self.sessions[form]

    def call(self, form: str, rows: int, share: float) -> Callable[[], object]:
        """Return a call of a form that takes another input every time."""
        draws = [self._spikes(rows, share, pooled=form == "pooled") for _ in range(_DRAWS)]
        calls = itertools.cycle([self.session(form).prepare({"x": draw}) for draw in draws])

        def call() -> object:
            return next(calls)()

        return call

    def _spikes(self, rows: int, share: float, *, pooled: bool) -> Array:
        if pooled:  # the same inputs fire in all rows
            return np.tile((self.generator.random(self.inputs) < share).astype(np.float32), (rows, 1))
        return (self.generator.random((rows, self.inputs)) < share).astype(np.float32)


def calibrate(
    *,
    threads: int = 1,
    sizes: Sequence[int] = SIZES,
    rows: Sequence[int] = ROWS,
    rounds: int = ROUNDS,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> ProjectionCosts:
    """Measure all forms over a grid of shapes.

    Parameters
    ----------
    threads : int
        Within one operator, as the model will run.
    sizes : sequence of int
        Inputs and outputs of the weights; all pairs are measured.
    rows : sequence of int
        Vectors in one product, beginning with 1.
    rounds : int
        Turns of every measurement, spread over the sweeps.
    progress : callable, optional
        Takes what, done and total.

    Raises
    ------
    InputError
        If sizes or rows are not increasing positive numbers.
    """
    for what, points in (("sizes", sizes), ("rows", rows)):
        if len(points) < 2 or points[0] < 1 or any(np.diff(points) <= 0):
            raise InputError(f"{what} {','.join(map(str, points))}: give two or more increasing positive numbers")
    if rows[0] != 1:
        raise InputError(f"rows {','.join(map(str, rows))}: the first must be 1")
    taken: dict[tuple[int, int, int], dict[str, list[float]]] = {}
    guards: list[float] = []
    done, total = 0, SWEEPS * len(sizes) ** 2 * len(rows)
    turns = -(-rounds // SWEEPS)
    for sweep, i, j in itertools.product(range(SWEEPS), range(len(sizes)), range(len(sizes))):
        runs = _Runs(sizes[i], sizes[j], threads, np.random.default_rng([seed, sweep, i, j]))
        if i == j == 0:
            guards += _guard_seconds(runs, turns)
        for k, number in enumerate(rows):
            measured = taken.setdefault((i, j, k), {})
            for name, seconds in _times(runs, number, turns).items():
                measured.setdefault(name, []).extend(seconds)
            done += 1
            if progress is not None:
                progress("calibrate", done, total)
    shape = (len(sizes), len(sizes))
    dense, single = np.zeros((*shape, len(rows))), np.zeros((*shape, len(SHARES)))
    several, pooled = (np.zeros((*shape, len(rows), len(SHARES))) for _ in range(2))
    for (i, j, k), measured in taken.items():
        dense[i, j, k] = _seconds(measured, "dense")
        several[i, j, k], pooled[i, j, k] = _by_share(measured, "several"), _by_share(measured, "pooled")
        if rows[k] == 1:
            single[i, j] = _by_share(measured, "single")
    return ProjectionCosts(
        machine=this_machine(),
        onnxruntime=str(onnxruntime.__version__),
        threads=threads,
        date=datetime.now(UTC).date().isoformat(),
        inputs=tuple(sizes),
        outputs=tuple(sizes),
        rows=tuple(rows),
        shares=SHARES,
        guard=max(float(np.median(guards)), _LEAST),
        dense=_undisturbed(dense),
        single=_undisturbed(single),
        several=_undisturbed(several),
        pooled=_undisturbed(pooled),
    )


def _times(runs: _Runs, rows: int, rounds: int) -> dict[str, list[float]]:
    """Return the measurements of each form, of the event-driven ones at every share that is not hopeless."""
    forms = ("single", "several", "pooled") if rows == 1 else ("several", "pooled")
    calls = {form: runs.call(form, rows, _DENSE_SHARE) for form in ("nothing", "dense")}
    limit = _HOPELESS * min(in_turns({"": calls["dense"]}, rounds=3, shortest=_SHORTEST)[""])
    for form in forms:
        for share in SHARES:
            call = runs.call(form, rows, share)
            # the two smallest shares show what an event costs
            if share > SHARES[1] and min(in_turns({"": call}, rounds=1, shortest=0)[""]) > limit:
                break
            calls[f"{form} {share}"] = call
    return in_turns(calls, rounds=rounds, shortest=_SHORTEST)


def _seconds(measured: Mapping[str, Sequence[float]], name: str) -> float:
    # other work on the machine only adds: the quarter that was disturbed least is nearest to what a product costs
    return max(float(np.quantile(measured[name], _UNDISTURBED)) - min(measured["nothing"]), _LEAST)


def _by_share(measured: Mapping[str, Sequence[float]], form: str) -> list[float]:
    """Return the seconds at every share, beyond the last that was measured in proportion to it."""
    known = [_seconds(measured, f"{form} {share}") for share in SHARES if f"{form} {share}" in measured]
    last = SHARES[len(known) - 1]
    return [*known, *(known[-1] * share / last for share in SHARES[len(known) :])]


def _undisturbed(table: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Lower what took longer than something larger: more inputs, outputs, rows or events are never less work."""
    for axis in range(table.ndim):
        turned = np.flip(table, axis)
        table = np.flip(np.minimum.accumulate(turned, axis), axis)
    return table


def _guard_seconds(runs: _Runs, rounds: int) -> list[float]:
    calls = {form: runs.call(form, 1, SHARES[1]) for form in ("single", "guarded")}
    times = in_turns(calls, rounds=4 * rounds, shortest=_SHORTEST)
    return [guarded - single for guarded, single in zip(times["guarded"], times["single"], strict=True)]


def _model(form: str, inputs: int, outputs: int, generator: np.random.Generator) -> Module:
    result: ValueSpec = ("y", np.int64, [2]) if form == "nothing" else ("y", np.float32, ["rows", outputs])
    module = Module.empty(inputs=[("x", np.float32, ["rows", inputs])], outputs=[result])
    rewriter = Rewriter(module)
    graph, (source,), (target,) = module.graph, module.graph.inputs, module.graph.outputs
    if form == "nothing":
        rewriter.add(graph, "Shape", [source], [target])
        rewriter.finish()
        return module
    weights = rewriter.constant("w", generator.standard_normal((inputs, outputs), np.float32))
    bias = rewriter.constant("b", generator.standard_normal(outputs, np.float32))
    if form == "dense":
        rewriter.add(graph, "Gemm", [source, weights, bias], [target])
        rewriter.finish()
        return module
    products = GatheredProducts(rewriter)
    product = rewriter.value("product", np.float32, ["rows", outputs])
    if form == "single":
        products.single(graph, source, weights, product)
    elif form == "several":
        products.several(graph, source, 2, weights, product, (inputs, outputs))
    elif form == "pooled":
        products.pooled(graph, source, 2, weights, product)
    else:
        few, many = (rewriter.value(name, np.float32, ["rows", outputs]) for name in ("few", "many"))
        branches = [rewriter.body(value.name, [], [value]) for value in (few, many)]
        products.single(branches[0], source, weights, few)
        rewriter.add(branches[1], "MatMul", [source, weights], [many])
        condition = products.at_most(graph, source, 2, inputs, 2, "rows")
        attributes = {"then_branch": branches[0], "else_branch": branches[1]}
        rewriter.add(graph, "If", [condition], [product], attributes)
    rewriter.add(graph, "Add", [product, bias], [target])
    rewriter.finish()
    return module
