"""One run of a plan on a sample, and everything that must hold of it."""

from __future__ import annotations

import re
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from snn_optimizer.api import run_job
from snn_optimizer.errors import BudgetError, InputError
from snn_optimizer.pipeline import PassStatus
from snn_optimizer.report import OptimizationReport
from tests.fuzz.execution import Comparison, Recorded, interface, is_empty, load, record, survives
from tests.fuzz.plans import Plan
from tests.fuzz.samples import Sample
from tests.fuzz.stimuli import calibration
from tests.fuzz.twists import FLOATS

SOURCE = Path(__file__).resolve().parents[2] / "src"
EXACT = ("bitwise", "algebraic")
RAISING = ("reroll", "distribute-time", "loop-to-scan", "recognize-neurons")
TWINS = 64  # numbers in equal tensors that are too small to be shared
PER_NEURON = 8  # parameters and initial states


@dataclass(frozen=True)
class Failure:
    """What went wrong: the same `signature` is the same defect, `reason` one line about this case."""

    signature: str
    reason: str


@dataclass
class Outcome:
    """What a run did; `refusal` is the project's own word for why it did nothing."""

    failures: list[Failure] = field(default_factory=list)
    report: OptimizationReport | None = None
    result: onnx.ModelProto | None = None
    refusal: str = ""
    skipped: str = ""
    unsettled: bool = False
    compared: int = 0
    empty_lost: int = 0


def crash(error: BaseException) -> Failure:
    """The failure of an unexpected exception: its type and the deepest place in the project."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    frames = traceback.extract_tb(cause.__traceback__)
    ours = [frame for frame in frames if str(SOURCE) in frame.filename] or list(frames)
    place = f"{Path(ours[-1].filename).name}:{ours[-1].name}" if ours else "?"
    text = " ".join(str(error).split())[:300]
    return Failure(
        f"{type(cause).__name__} at {place}", f"{type(error).__name__}: {text} (line {ours[-1].lineno if ours else 0})"
    )


class Examined:
    """A sample whose original was run; many plans can be tried on it."""

    def __init__(self, sample: Sample):
        self.sample = sample
        self.run = load(sample.model)
        self.comparison = Comparison(sample)
        self._recorded: dict[tuple[float, float, int | None], list[Recorded]] = {}

    def recorded(self, plan: Plan) -> list[Recorded]:
        """The original on the stimuli of a domain."""
        key = (plan.low, plan.high, plan.max_active)
        if key not in self._recorded:
            self._recorded[key] = list(record(self.sample, plan, self.run))
        return self._recorded[key]

    def examine(self, plan: Plan, costs: str, *, again: bool = False, twice: bool = False) -> Outcome:
        """Run a plan and hold it to what it promises.

        again: optimize the result once more. twice: run it a second time and compare the files.
        """
        outcome = Outcome()
        if not self.recorded(plan):
            outcome.skipped = "the original does not run"
            return outcome
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            self._optimize(plan, costs, outcome)
            if outcome.result is None or outcome.failures:
                return outcome
            outcome.failures += self._judge(plan, costs, outcome)
            if twice and not outcome.failures:
                outcome.failures += self._repeat(plan, costs, outcome)
            if again and not outcome.failures and not plan.emit:
                outcome.failures += self._again(plan, costs, outcome)
        return outcome

    def _optimize(self, plan: Plan, costs: str, outcome: Outcome) -> None:
        before = self.sample.model.SerializeToString(deterministic=True)
        data = calibration(self.sample, plan)
        try:
            graph, outcome.report = run_job(self.sample.model, plan.job(dict(data) if data else None, costs))
            outcome.result = graph.to_onnx()
        except (InputError, BudgetError) as error:
            outcome.refusal = f"{type(error).__name__}: {_generic(str(error))}"
        except Exception as error:  # noqa: BLE001 - anything at all is a finding
            outcome.failures.append(crash(error))
        if self.sample.model.SerializeToString(deterministic=True) != before:
            outcome.failures.append(Failure("the model given was changed", plan.pipeline))

    def _judge(self, plan: Plan, costs: str, outcome: Outcome) -> Iterator[Failure]:
        assert outcome.report is not None
        assert outcome.result is not None
        report, result = outcome.report, outcome.result
        if report.evidence.verdict == "DIFFERENT" and report.exactness != "lossy":
            yield Failure(f"verdict DIFFERENT: {self._guilty(plan, costs)}", report.evidence.reason)
        for each in report.pass_results:
            exact = each.claim == "bitwise" or (each.claim == "algebraic" and self.sample.exact)
            if each.status is PassStatus.ROLLED_BACK and exact and not self.sample.half:
                yield Failure(f"rolled back: {each.name}", f"{each.claim} {each.text}: {each.reason}")
        try:
            onnx.checker.check_model(result, full_check=True)
        except Exception as error:  # noqa: BLE001 - checker and shape inference raise their own
            yield Failure(f"checker: {self._guilty(plan, costs)}", _first_line(error))
            return
        if plan.is_level:
            yield from _growth(plan, report, self.sample.model, result)
        if plan.emit:
            return
        if interface(result) != interface(self.sample.model):
            yield Failure(f"interface: {self._guilty(plan, costs)}", f"{interface(result)}")
            return
        if wrong := self.difference(plan, outcome):
            yield Failure(f"{report.exactness} result differs: {self._guilty(plan, costs)}", wrong)

    def difference(self, plan: Plan, outcome: Outcome) -> str | None:
        """Compare original and result at the class the run declared."""
        assert outcome.report is not None
        assert outcome.result is not None
        claim = outcome.report.exactness
        try:
            run = load(outcome.result)
        except Exception as error:  # noqa: BLE001 - the runtime's own exceptions have no public root
            return f"the result does not load: {_first_line(error)}"
        # raising takes one freedom: the sign of a zero (docs/explanation/exactness.md)
        signed = not any(each.name in RAISING and each.changes for each in outcome.report.pass_results)
        if self.sample.half and not signed:
            claim = "algebraic" if claim == "bitwise" else claim  # docs/reference/operators.md
        cases = self.recorded(plan) if claim in EXACT else []
        if claim not in EXACT and plan.verify and not plan.budget:
            cases = [*self._on_data(plan)]
        for recorded in cases:
            if is_empty(recorded.feeds) and not survives(run, recorded.feeds):
                outcome.empty_lost += 1  # a Reshape to -1 rows of nothing: no runtime can tell what -1 is
                continue
            try:
                after = run(recorded.feeds)
            except Exception as error:  # noqa: BLE001 - as above
                return f"the result does not run on {recorded.name}: {_first_line(error)}"
            # what was proved or checked on the caller's data holds there without excuse
            excuse = claim in EXACT
            if found := self.comparison.difference(recorded, after, claim, excuse=excuse, signed=signed):
                return found
            outcome.compared += 1
        return self._over_budget(plan, outcome) if claim == "lossy" else None

    def _over_budget(self, plan: Plan, outcome: Outcome) -> str | None:
        assert outcome.report is not None
        limit, found = plan.budget.get("spike_change"), outcome.report.outputs_changed
        fits = outcome.report.split != ""
        if plan.verify and limit is not None and found is not None and not fits and found > limit + 1e-12:
            return f"spikes changed {found:.3%}, over the budget of {limit:.3%}"
        return None

    def _on_data(self, plan: Plan) -> Iterator[Recorded]:
        data = calibration(self.sample, plan)
        if data is None:
            return
        feeds = {name: array for name, array in data.items() if name != "labels"}
        yield Recorded("calibration", feeds, self.run(feeds))

    def _guilty(self, plan: Plan, costs: str) -> str:
        """The first run of a pass after which an unguarded run is wrong, by bisection; the claim of the run else."""
        bare = replace(plan, verify=False, verify_each=False)
        low, high = 0, 0
        for low_limit in (None, 0):
            wrong, results = self._is_wrong(replace(bare, limit=low_limit), costs)
            if low_limit is None:
                if not wrong:
                    return "only when guarded"
                high = len(results)
            elif wrong:
                return "before any pass"
        names = self._is_wrong(bare, costs)[1]
        while high - low > 1:
            middle = (low + high) // 2
            if self._is_wrong(replace(bare, limit=middle), costs)[0]:
                high = middle
            else:
                low = middle
        return names[high - 1] if 0 < high <= len(names) else "?"

    def _is_wrong(self, plan: Plan, costs: str) -> tuple[bool, list[str]]:
        outcome = Outcome()
        self._optimize(plan, costs, outcome)
        if outcome.report is None or outcome.result is None:
            return True, []
        names = [each.name for each in outcome.report.pass_results]
        try:
            onnx.checker.check_model(outcome.result, full_check=True)
        except Exception:  # noqa: BLE001 - as above
            return True, names
        if not plan.emit and interface(outcome.result) != interface(self.sample.model):
            return True, names
        return not plan.emit and self.difference(plan, outcome) is not None, names

    def _repeat(self, plan: Plan, costs: str, outcome: Outcome) -> Iterator[Failure]:
        second = Outcome()
        self._optimize(plan, costs, second)
        assert outcome.result is not None
        if second.result is None:
            yield Failure("a second run fails", second.refusal or str(second.failures))
        elif second.result.SerializeToString(deterministic=True) != outcome.result.SerializeToString(
            deterministic=True
        ):
            yield Failure(f"other bytes: {plan.pipeline if plan.is_level else 'passes'}", plan.pipeline)

    def _again(self, plan: Plan, costs: str, outcome: Outcome) -> Iterator[Failure]:
        """The result through the same plan: it may find more, it may not fail or become wrong."""
        assert outcome.result is not None
        assert outcome.report is not None
        states = self.sample.states
        following = Examined(Sample(self.sample.kind, outcome.result, self.sample.exact, states, self.sample.twists))
        second = following.examine(plan, costs)
        if second.refusal:
            yield Failure(f"again refused: {second.refusal}", plan.pipeline)
        for each in second.failures:
            yield Failure(f"again: {each.signature}", each.reason)
        if plan.is_level and second.report is not None and not second.failures:
            if second.report.after.params > outcome.report.after.params:
                yield Failure(f"again: more parameters: {plan.pipeline}", plan.pipeline)
            sizes = [(one.after.neurons, one.after.params, one.after.nodes) for one in (outcome.report, second.report)]
            outcome.unsettled = sizes[0] != sizes[1]


def _growth(
    plan: Plan, report: OptimizationReport, before: onnx.ModelProto, after: onnx.ModelProto
) -> Iterator[Failure]:
    """A level neither adds neurons nor stores more numbers, but for parameters and states of neurons it names."""
    # arithmetic is counted as neurons only once it is found to be some: steps in a row, or an input added to an
    # output of its shape, which is what a state without decay looks like
    found = any(each.name in ("reroll", "recognize-neurons") and each.changes for each in report.pass_results)
    if report.after.neurons > report.before.neurons and not found:
        yield Failure(f"more neurons: {plan.pipeline}", f"{report.before.neurons} became {report.after.neurons}")
    old, new = stored_numbers(before.graph), stored_numbers(after.graph)
    if new > old + TWINS + PER_NEURON * max(report.before.neurons, report.after.neurons):
        yield Failure(f"more numbers: {plan.pipeline}", f"{old} stored floats became {new}")


def stored_numbers(graph: onnx.GraphProto) -> int:
    """Floats in initializers and constants, in bodies too; not those that fill a tensor with one number."""
    total = sum(_numbers(each) for each in graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                total += stored_numbers(attribute.g)
            elif node.op_type == "Constant" and attribute.HasField("t"):
                total += _numbers(attribute.t)
    return total


def _numbers(tensor: onnx.TensorProto) -> int:
    if tensor.data_type not in FLOATS:
        return 0
    array = numpy_helper.to_array(tensor)
    return array.size if len(np.unique(array)) > 1 else 0


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:240]


def _generic(text: str) -> str:
    """A message without the names and numbers of one case."""
    text = re.sub(r"'[^']*'", "'…'", text.splitlines()[0])
    return re.sub(r"\d[\d,.]*", "#", text)[:140]


def rewrites(report: OptimizationReport) -> Counter[str]:
    """Rewrites that stand, by pass."""
    return Counter({each.name: each.changes for each in report.pass_results if each.status is PassStatus.KEPT})
