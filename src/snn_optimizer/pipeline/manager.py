"""The pass manager: run a pipeline on a graph, guard every weaker pass, keep a record."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from snn_optimizer.analyses import AnalysisManager
from snn_optimizer.errors import (
    ConvergenceError,
    InputError,
    IRVerificationError,
    PassError,
    SnnOptimizerError,
    did_you_mean,
)
from snn_optimizer.ir import InputDomain, SNNGraph, Value, verify_structure
from snn_optimizer.passes import registry
from snn_optimizer.passes.base import (
    Accept,
    ActivityProvider,
    Evaluator,
    Exactness,
    Frontend,
    Outcome,
    Pass,
    PassContext,
    Rewrites,
    Spending,
)
from snn_optimizer.pipeline.presets import expand
from snn_optimizer.pipeline.records import PassResult, PassStatus
from snn_optimizer.pipeline.spec import GroupSpec, PassSpec, Pipeline, PresetSpec
from snn_optimizer.pipeline.threads import one_thread

__all__ = ["Checker", "Instrument", "PassManager", "create_passes"]

DEFAULT_ROUNDS = 16


class Checker(Protocol):
    """Judges a rewritten graph against the original."""

    def check(self, graph: SNNGraph, claim: Exactness) -> tuple[bool, str]:
        """Return whether the claim holds, and what was found."""

    def check_step(self, before: SNNGraph, graph: SNNGraph, claim: Exactness) -> tuple[bool, str]:
        """Return whether the claim of one pass holds between the graphs before and after it, and what was found."""

    def accept(self, graph: SNNGraph) -> Spending:
        """Return whether the graph is within the caller's budget, and what it spends."""


class Instrument:
    """Observer of a run; printing and timing are instruments."""

    def before_pass(self, number: int, spec: PassSpec, *, runs: bool) -> None:
        """Hear which run of a pass comes next, and whether it runs or is beyond the limit."""

    def after_pass(self, result: PassResult, graph: SNNGraph) -> None:
        """Look at the graph after a pass, whatever it did."""


@dataclass
class PassManager:
    """Runs pipelines.

    Attributes
    ----------
    domain : InputDomain
        Premise of all proofs.
    checker : Checker, optional
        Guards passes that claim less than BITWISE; without one nothing is checked.
    instruments : sequence of Instrument
    limit : int, optional
        Runs of passes beyond this number are skipped (``--bisect-limit``). Every run has its number, whether it
        finds something to do or not; up to the limit the numbers do not depend on it.
    rewrite_limit : int, optional
        Of the run whose number is ``limit``, rewrites beyond this number are not made.
    verify_each : bool
        Check every pass that changed something against the graph before it, whatever it claims.
    """

    domain: InputDomain = field(default_factory=InputDomain)
    checker: Checker | None = None
    evaluate_node: Callable[[SNNGraph], Evaluator] | None = None
    activity: ActivityProvider | None = None
    has_budget: bool = False
    instruments: Sequence[Instrument] = ()
    limit: int | None = None
    rewrite_limit: int | None = None
    verify_each: bool = False
    frontend: Frontend = field(default_factory=Frontend)
    results: list[PassResult] = field(default_factory=list)
    _rejected: set[str] = field(default_factory=set)
    _runs: int = 0
    _size: tuple[int, int, int] | None = None  # parameters, neurons, nodes after the last pass
    _analyses: AnalysisManager | None = None  # facts about the graph, kept until a pass changes it

    def run(self, graph: SNNGraph, pipeline: Pipeline) -> list[PassResult]:
        """Run all passes of a pipeline in place and return their records.

        Raises
        ------
        UnknownPassError, PassOptionError
            Before anything runs.
        PassError
            If a pass raises or leaves an invalid model.
        ConvergenceError
            If a fixpoint group still changes the graph at its bound.
        """
        elements = expand(pipeline).elements
        passes = create_passes(elements)
        self._run_elements(graph, elements, passes)
        return self.results

    def _run_elements(self, graph: SNNGraph, elements: Sequence[object], passes: dict[int, Pass]) -> int:
        changes = 0
        for element in elements:
            if isinstance(element, GroupSpec):
                changes += self._run_group(graph, element, passes)
            elif isinstance(element, PassSpec):
                changes += self._run_pass(graph, element, passes[id(element)])
        return changes

    def _run_group(self, graph: SNNGraph, group: GroupSpec, passes: dict[int, Pass]) -> int:
        bound = _rounds(group)
        total = 0
        for _ in range(bound):
            changes = self._run_elements(graph, group.body, passes)
            total += changes
            if not changes:
                return total
        raise ConvergenceError(f"'{group}' was still changing the model after {bound} rounds")

    def _run_pass(self, graph: SNNGraph, spec: PassSpec, one: Pass) -> int:
        key = str(spec)
        if key in self._rejected:
            return 0
        self._runs += 1
        result = PassResult(name=one.name, claim=one.claim.name.lower(), number=self._runs, text=key)
        self._size = self._size or _size_of(graph)
        result.params_before, result.neurons_before, result.nodes_before = self._size
        runs = self.limit is None or result.number <= self.limit
        for instrument in self.instruments:
            instrument.before_pass(result.number, spec, runs=runs)
        if not runs:
            result.status, result.reason = PassStatus.SKIPPED, f"bisect limit {self.limit}"
            self._finish(result, graph)
            return 0
        may_fail = one.claim is not Exactness.BITWISE or one.confirmed or self.verify_each
        snapshot = graph.copy(share_weights=True) if may_fail else None
        interface = _interface(graph)
        outcome = self._transform(graph, one, result)
        result.changes = outcome.changes
        result.statistics = dict(outcome.details)
        claim = one.claim if outcome.claim is None else min(outcome.claim, one.claim)
        result.claim = (claim if outcome.changes else one.claim).name.lower()
        if outcome.changes:
            self._analyses = None
            self._verify(graph, interface, one)
            result.status = PassStatus.KEPT
            confirm = one.confirmed or claim < one.claim  # what is claimed of this model only is confirmed by running
            if snapshot is not None and not self._guard(snapshot, graph, claim, result, confirm=confirm):
                graph.become(snapshot)
                result.status = PassStatus.ROLLED_BACK
                self._rejected.add(key)
        if result.status is PassStatus.KEPT:
            result.neurons_removed, result.layers_fused = outcome.neurons_removed, outcome.layers_fused
        self._finish(result, graph)
        return result.changes if result.status is PassStatus.KEPT else 0

    def _transform(self, graph: SNNGraph, one: Pass, result: PassResult) -> Outcome:
        accept: Accept | None = self.checker.accept if self.checker is not None and self.has_budget else None
        if self._analyses is None or self._analyses.module is not graph.module:
            self._analyses = AnalysisManager(graph.module, self.domain)
        context = PassContext(
            self._analyses,
            pass_name=one.name,
            remarks=result.remarks,
            evaluate_node=None if self.evaluate_node is None else self.evaluate_node(graph),
            activity=self.activity,
            accept=accept,
            frontend=self.frontend,
            rewrites=Rewrites(self.rewrite_limit if result.number == self.limit else None),
        )
        start = time.perf_counter()
        try:
            with one_thread():
                return one.run(graph, context)
        except SnnOptimizerError:
            raise
        except Exception as error:
            before = ", ".join(r.name for r in self.results if r.status is PassStatus.KEPT) or "nothing"
            made = context.rewrites
            where = f" in or behind its rewrite {made.made}, {made.last}" if made.made else ""
            raise PassError(
                f"pass '{one.name}' raised {type(error).__name__}{where}: {error} (after {before})"
            ) from error
        finally:
            result.rewrites, result.last_rewrite = context.rewrites.made, context.rewrites.last
            result.seconds = time.perf_counter() - start

    def _verify(self, graph: SNNGraph, interface: list[tuple[str, str, str]], one: Pass) -> None:
        try:
            verify_structure(graph.module)
        except IRVerificationError as error:
            raise PassError(f"pass '{one.name}' left an invalid model: {error}") from error
        if _interface(graph) != interface:
            raise PassError(f"pass '{one.name}' changed the inputs or outputs of the model")

    def _guard(self, before: SNNGraph, graph: SNNGraph, claim: Exactness, result: PassResult, *, confirm: bool) -> bool:
        weaker = claim is not Exactness.BITWISE or confirm
        if self.checker is None or not (weaker or self.verify_each):
            return True
        start = time.perf_counter()
        holds, found = True, ""
        if self.verify_each and claim is not Exactness.LOSSY:  # that one changes results, and is held to the budget
            holds, found = self.checker.check_step(before, graph, claim)
        if holds and weaker:
            holds, found = self.checker.check(graph, claim)
        result.check_seconds = time.perf_counter() - start
        result.check = found
        if not holds:
            result.reason = found
        return holds

    def _finish(self, result: PassResult, graph: SNNGraph) -> None:
        if result.status is PassStatus.KEPT:
            self._size = _size_of(graph)
        result.params_after, result.neurons_after, result.nodes_after = self._size or _size_of(graph)
        self.results.append(result)
        for instrument in self.instruments:
            instrument.after_pass(result, graph)


def create_passes(elements: Sequence[object]) -> dict[int, Pass]:
    """Create the passes of an expanded pipeline, by the identity of their elements, before any runs.

    Raises
    ------
    InputError
        If a pass, an option or a group is unknown, or a value wrong.
    """
    found: dict[int, Pass] = {}
    for element in elements:
        if isinstance(element, PassSpec):
            if element.name == "fixpoint":
                raise InputError("group 'fixpoint' needs passes in parentheses, for example fixpoint(dead-code)")
            found[id(element)] = registry.create(element.name, dict(element.options))
        elif isinstance(element, GroupSpec):
            if element.name != "fixpoint":
                raise _unknown_group(element.name)
            _rounds(element)
            found.update(create_passes(element.body))
        elif isinstance(element, PresetSpec):  # pragma: no cover - expand() has removed them
            raise PassError(f"preset '@{element.name}' was not expanded")
    return found


def _unknown_group(name: str) -> InputError:
    """Return what is wrong with ``name(...)``: it may be a pass, which takes no body."""
    near = did_you_mean(name, ["fixpoint"])
    try:
        canonical = registry.resolve(name)
    except InputError:
        return InputError(f"unknown group '{name}'; known: fixpoint{near}")
    return InputError(f"'{canonical}' is a pass and holds no others: write '{canonical}' without parentheses")


def _rounds(group: GroupSpec) -> int:
    """Return the bound of a fixpoint group."""
    options = dict(group.options)
    bound = options.pop("max", DEFAULT_ROUNDS)
    if options:
        written = min(options)
        raise InputError(f"group 'fixpoint' has no option '{written}'; known: max{did_you_mean(written, ['max'])}")
    if type(bound) is not int or bound < 1:
        raise InputError(f"group 'fixpoint': max is '{bound}'; give a whole number of at least 1")
    return bound


def _size_of(graph: SNNGraph) -> tuple[int, int, int]:
    return graph.total_params, graph.total_neurons, graph.module.count_nodes()


def _interface(graph: SNNGraph) -> list[tuple[str, str, str]]:
    def describe(value: Value) -> tuple[str, str, str]:
        return value.name, str(value.dtype), str(None if value.shape is None else list(value.shape))

    return [describe(v) for v in (*graph.module.graph.inputs, *graph.module.graph.outputs)]
