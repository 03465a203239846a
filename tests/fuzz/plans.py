"""What is done to a sample: a pipeline with everything that decides what it does, drawn from a seed, stored as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from snn_optimizer.api import Job
from snn_optimizer.ir import InputDomain
from snn_optimizer.passes import registry
from snn_optimizer.passes.base import Frontend
from snn_optimizer.pipeline.budget import Budget
from snn_optimizer.pipeline.presets import PRESETS
from tests.fuzz.samples import Sample
from tests.support.random_networks import SeededChoices

LEVELS = ("@O0", "@O1", "@O1", "@O2", "@O2", "@O2", "@O3", "@O3", "@Oz")
MEASURED = ("@O3", "@Oz")
COSTS = "COSTS"  # stands for a file of costs that make gathering cheap, see `campaign`


@dataclass(frozen=True)
class Plan:
    """One run.

    pipeline:    text of passes, groups and presets.
    calibration: how many samples of data it is given, 0 for none; `labels`: whether they are labelled.
    low, high, max_active: the declared domain of the inputs.
    budget:      limits by the names of `Budget`.
    """

    pipeline: str
    calibration: int = 0
    labels: bool = False
    low: float = 0.0
    high: float = 1.0
    max_active: int | None = None
    budget: dict[str, float] = field(default_factory=dict)
    verify: bool = False
    verify_each: bool = False
    strip_metadata: bool = False
    emit: str = ""
    states: dict[str, str] = field(default_factory=dict)
    limit: int | None = None
    seed: int = 0

    def job(self, data: dict[str, np.ndarray] | None, costs: str) -> Job:
        """The job; `data` is what `calibration` asks for."""
        return Job(
            pipeline=self.pipeline.replace(COSTS, f"'{costs}'"),
            calibration=data,
            budget=Budget(**self.budget),
            domain=InputDomain(default=(self.low, self.high), max_active=self.max_active),
            verify=self.verify,
            verify_each=self.verify_each,
            strip_metadata=self.strip_metadata,
            emit=self.emit,
            frontend=Frontend(states=self.states),
            limit=self.limit,
            seed=self.seed,
        )

    def to_json(self) -> dict[str, Any]:
        """What is not at its default."""
        plain = asdict(Plan(""))
        return {name: value for name, value in asdict(self).items() if value != plain[name]}

    @property
    def is_level(self) -> bool:
        """Whether it is one of the levels, which promise more than any row of passes."""
        return self.pipeline in LEVELS


Values = Sequence[Any]
# Every option of every pass; a pass or an option that is not here is refused by `check_options`.
OPTIONS: dict[str, dict[str, Values]] = {
    "canonicalize": {},
    "common-subexpressions": {},
    "compress-units": {"fraction": (0.0, 0.1, 0.5), "ridge": (0.001, 0.0, 1.0), "inputs": (True, False)},
    "constant-neuron-folding": {},
    "dead-code": {},
    "dead-neuron-elimination": {"threshold": (0.001, 0.0, 0.2), "measured": (False, True), "spare": (False, True)},
    "distribute-time": {},
    "event-driven": {"costs": (COSTS,), "margin": (0.15, 0.0, 0.9)},
    "fold-constants": {"max-growth": (0, 64, 1 << 20)},
    "layer-fusion": {"measured": (False, True), "classic": (False, False, True), "rate-threshold": (0.01, 0.5)},
    "loop-to-scan": {},
    "map-custom-ops": {"file": ("",)},
    "prune": {
        "sparsity": (0.0, 0.3, 0.9, 1.0),
        "threshold": (0.01, 0.0, 0.5),
        "method": ("magnitude", "contribution", "membrane"),
        "scope": ("global", "local"),
        "pattern": ("", "", "2:4", "1:2"),
        "units": (False, True),
        "budget": (False, True),
    },
    "quantize-weights": {
        "bits": (8, 4),
        "arithmetic": ("auto", "integer", "float"),
        "smallest": (0, 1, 131072),
        "scales": ("free", "power-of-two"),
        "compensate": (True, False),
    },
    "recognize-neurons": {},
    "redundancy-elimination": {"correlation-threshold": (1.0, 1.0, 0.99, 0.5)},
    "redundant-connection-removal": {},
    "reroll": {},
    "share-initializers": {"min-bytes": (64, 0, 1)},
    "snap-to-grid": {"exponent": (-1, 0, 3, 10)},
    "specialize-neurons": {},
}


def check_options() -> None:
    """Refuse to run while passes or options are left out."""
    for name in registry.names():
        left = {option.name for option in registry.options_of(name)} ^ set(OPTIONS.get(name, {"": ()}))
        if left:
            raise LookupError(
                f"tests/fuzz/plans.py: OPTIONS of pass '{name}' lacks or invents: {', '.join(sorted(left))}"
            )


def plan(sample: Sample, seed: int, index: int, number: int) -> Plan:
    """A run of a sample."""
    choices = SeededChoices([seed, index, number])  # type: ignore[arg-type]
    pick = choices.pick
    calibration = pick((0, 0, 6, 20))
    drawn = Plan(
        pipeline=pick(LEVELS) if pick((True, False)) else _passes(choices),
        calibration=calibration,
        labels=calibration > 0 and pick((False, True)),
        verify=pick((False,) * 5 + (True,)),  # searching for thresholds takes ten times as long as all passes
        strip_metadata=pick((False, False, True)),
        states=dict(sample.states) if sample.states and pick((True, False)) else {},
        emit=pick(("",) * 20 + ("sequence", "step", "scan")),
        seed=int(choices.generator.integers(1000)),
    )
    low, high = pick(((0.0, 1.0),) * 6 + ((-1.0, 1.0), (0.0, 3.0), (0.0, 0.0), (1.0, 1.0), (0.0, 0.5)))
    drawn = replace(drawn, low=low, high=high, verify_each=drawn.verify and pick((False, False, True)))
    if low == 0 and pick((False,) * 5 + (True,)):
        drawn = replace(drawn, max_active=pick((1, 2)))
    if drawn.pipeline in MEASURED and not drawn.calibration:
        drawn = replace(drawn, calibration=20)
    return replace(drawn, budget=_budget(choices, drawn))


def _budget(choices: SeededChoices, drawn: Plan) -> dict[str, float]:
    if not drawn.calibration or (drawn.pipeline != "@Oz" and choices.pick((True, True, False))):
        return {}
    names = ["decision_change", "spike_change"] + (["accuracy_drop"] if drawn.labels else [])
    return {choices.pick(names): choices.pick((0.0, 0.05, 0.3))}


def _passes(choices: SeededChoices) -> str:
    """A row of passes with options, groups and presets among them."""
    pick = choices.pick
    elements = ["@raise"] if pick((True, False)) else []
    for _ in range(pick((1, 1, 2, 3, 5))):
        match pick(("pass",) * 8 + ("preset", "group")):
            case "preset":
                elements.append(f"@{pick([name for name in PRESETS if name not in {'O3', 'Oz'}])}")
            case "group":
                body = ",".join(_one_pass(choices) for _ in range(pick((1, 2, 3))))
                elements.append(f"fixpoint{{max={pick((8, 16))}}}({body})")
            case _:
                elements.append(_one_pass(choices))
    return ",".join(elements)


def _one_pass(choices: SeededChoices) -> str:
    name = choices.pick(list(OPTIONS))
    chosen = {}
    for option, values in OPTIONS[name].items():
        if values[0] == COSTS or choices.pick((False, False, True)):
            chosen[option] = choices.pick(values)
    written = " ".join(f"{option}={_written(value)}" for option, value in chosen.items() if value != "")
    return f"{name}{{{written}}}" if written else name


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}'" if isinstance(value, str) and ":" in value else str(value)


Draw = Callable[[Sample, int, int, int], Plan]
