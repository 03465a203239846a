"""Findings: a model and the run that went wrong on it, as two files that can be replayed."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from snn_optimizer.errors import SnnOptimizerError
from snn_optimizer.pipeline.elements import GroupSpec, Pipeline
from snn_optimizer.pipeline.presets import expand
from snn_optimizer.pipeline.spec import parse
from tests.fuzz.oracle import Examined, Failure
from tests.fuzz.plans import Plan
from tests.fuzz.samples import Sample


@dataclass(frozen=True)
class Finding:
    """A run that failed, and what was seen."""

    sample: Sample
    plan: Plan
    failure: Failure
    origin: str = ""
    again: bool = False
    twice: bool = False

    @property
    def name(self) -> str:
        """A file name that tells findings of different signatures apart."""
        words = re.sub(r"[^a-z0-9]+", "-", self.failure.signature.lower()).strip("-")[:60].strip("-")
        return f"{words}-{zlib.crc32(self.failure.signature.encode()):08x}"

    def save(self, folder: Path) -> Path:
        """Write `NAME.json`, and the model beside it as `NAME.onnx`."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        onnx.save(self.sample.model, path.with_suffix(".onnx"))
        known = {
            "signature": self.failure.signature,
            "reason": self.failure.reason,
            "plan": self.plan.to_json(),
            "kind": self.sample.kind,
            "exact": self.sample.exact,
            "states": dict(self.sample.states),
            "twists": list(self.sample.twists),
            "again": self.again,
            "twice": self.twice,
            "origin": self.origin,
        }
        path.write_text(json.dumps(known, indent=1) + "\n")
        return path

    @classmethod
    def load(cls, path: Path) -> Finding:
        """Read what `save` wrote."""
        known: dict[str, Any] = json.loads(path.read_text())
        sample = Sample(
            known["kind"], onnx.load(path.with_suffix(".onnx")), known["exact"], known["states"], tuple(known["twists"])
        )
        failure = Failure(known["signature"], known["reason"])
        return cls(sample, Plan(**known["plan"]), failure, known["origin"], known["again"], known["twice"])

    def replay(self, costs: str) -> list[Failure]:
        """What fails now."""
        examined = Examined(self.sample)
        return examined.examine(self.plan, costs, again=self.again, twice=self.twice).failures


def shrink(finding: Finding, costs: str, expired: Callable[[], bool]) -> Finding:
    """Look for a smaller case of the same signature, until `expired`."""

    def still(candidate: Finding) -> bool:
        if expired():
            return False
        try:
            return any(each.signature == finding.failure.signature for each in candidate.replay(costs))
        except Exception:  # noqa: BLE001 - a candidate the runtime or the checker refuses is no case
            return False

    best = finding
    for change in ({"again": False}, {"twice": False}):
        best = _better(best, replace(best, **change), still)
    best = _shorter(best, still)
    best = _plainer(best, still)
    return _smaller(best, still)


Still = Callable[[Finding], bool]


def _better(best: Finding, candidate: Finding, still: Still) -> Finding:
    return candidate if candidate != best and still(candidate) else best


def _shorter(best: Finding, still: Still) -> Finding:
    """Fewer passes."""
    try:
        elements = list(expand(parse(best.plan.pipeline)).elements)
    except SnnOptimizerError:
        return best
    if best.plan.is_level and best.failure.signature.startswith(("more ", "other bytes")):
        return best
    while True:
        shorter = None
        flat = [
            each for element in elements for each in (element.body if isinstance(element, GroupSpec) else [element])
        ]
        candidates = [flat] if flat != elements else []
        size = len(elements) // 2
        while size:
            candidates += [elements[:start] + elements[start + size :] for start in range(0, len(elements), size)]
            size //= 2
        for candidate in candidates:
            if candidate == elements:
                continue
            trial = replace(best, plan=replace(best.plan, pipeline=str(Pipeline(tuple(candidate)))))
            if still(trial):
                best, shorter = trial, candidate
                break
        if shorter is None:
            return best
        elements = shorter


def _plainer(best: Finding, still: Still) -> Finding:
    """Settings at their defaults."""
    plain = Plan("")
    for name in ("emit", "verify_each", "verify", "strip_metadata", "states", "budget", "labels", "max_active",
                 "calibration", "seed", "low", "high"):  # fmt: skip
        changed = replace(best.plan, **{name: getattr(plain, name)})
        best = _better(best, replace(best, plan=changed), still)
    return best


def _smaller(best: Finding, still: Still) -> Finding:
    """Fewer outputs, and nodes passed by."""
    progress = True
    while progress:
        progress = False
        for model in _reduced(best.sample.model):
            candidate = replace(best, sample=replace(best.sample, model=model))
            if still(candidate):
                best, progress = candidate, True
                break
    return best


def _reduced(model: onnx.ModelProto) -> list[onnx.ModelProto]:
    """Models of one output less, then of one node less whose result is replaced by an operand of its shape."""
    found = []
    for index in range(len(model.graph.output) if len(model.graph.output) > 1 else 0):
        trial = _copy(model)
        del trial.graph.output[index]
        found.append(_swept(trial))
    shapes = _shapes(model)
    for index in reversed(range(len(model.graph.node))):
        node = model.graph.node[index]
        for name in node.input:
            if len(node.output) >= 1 and name and shapes.get(name) and shapes.get(name) == shapes.get(node.output[0]):
                trial = _copy(model)
                trial.graph.node[index].CopyFrom(onnx.helper.make_node("Identity", [name], [node.output[0]], node.name))
                if node.op_type != "Identity":
                    found.append(_swept(trial))
                break
    return found


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _shapes(model: onnx.ModelProto) -> dict[str, str]:
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = [*inferred.value_info, *inferred.input, *inferred.output]
    return {each.name: each.type.tensor_type.SerializeToString().hex() for each in values}


def _swept(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without what no output needs."""
    graph = model.graph
    while True:
        read = {each.name for each in graph.output}
        read |= {name for node in graph.node for name in _all_reads(node)}
        idle = [node for node in graph.node if not read & set(node.output)]
        if not idle:
            break
        for node in idle:
            graph.node.remove(node)
    for tensor in [each for each in graph.initializer if each.name not in read]:
        graph.initializer.remove(tensor)
    used = {node.op_type for node in _all_nodes(graph) if node.domain}
    for function in [each for each in model.functions if each.name not in used]:
        model.functions.remove(function)
    return model


def _all_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    bodies = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    return [*graph.node, *(node for body in bodies for node in _all_nodes(body))]


def _all_reads(node: onnx.NodeProto) -> set[str]:
    names = set(node.input)
    for attribute in node.attribute:
        if attribute.HasField("g"):
            names |= {each.name for each in attribute.g.output}
            names |= {name for inner in attribute.g.node for name in _all_reads(inner)}
    return names
