"""Passes with the mistakes that real ones are prone to, and small networks on which each mistake shows.

They are registered as another distribution's would be, through entry points (`registered`). `StrictComparison` claims
that no bit changes, the others claim what the passes claim that they are derived from.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import patch

import numpy as np
import onnx
import pytest

from snn_optimizer import ops
from snn_optimizer.analyses import NO_UNIT, AnalysisManager, Duplicates, Role, Site, UnitGroups
from snn_optimizer.analyses.rows import position_ranks, positions_of
from snn_optimizer.ir import Module, Node, Rewriter, SNNGraph
from snn_optimizer.ops import NeuronVariant
from snn_optimizer.passes import registry
from snn_optimizer.passes.base import Exactness, Outcome, Pass, PassContext
from snn_optimizer.passes.structure import linear_fusion
from snn_optimizer.passes.structure.constant_neuron_folding import ConstantNeuronFolding
from snn_optimizer.passes.structure.dead_neuron_elimination import DeadNeuronElimination
from snn_optimizer.passes.structure.layer_fusion import LayerFusion
from snn_optimizer.passes.structure.redundancy_elimination import RedundancyElimination
from snn_optimizer.passes.unit_surgery import Surgeon
from tests.support.models import LIF, ModelBuilder, conv, initializer, mlp, with_initializer

LIF_GE = NeuronVariant("LIF", fire="ge")


@dataclass(frozen=True, slots=True)
class WrongColumn(RedundancyElimination):
    """Merge duplicates, but add the column next to that of the merged neuron."""

    name: ClassVar[str] = "wrong-column"

    def _redirect(self, graph, context, surgeon, contraction, keeper, near) -> None:
        classes = surgeon.groups.classes_at(contraction.labels_in)
        moved = np.flatnonzero((classes != NO_UNIT) & (keeper[classes] != classes))
        if len(moved):
            columns = surgeon.columns(contraction).copy()
            target = positions_of(classes, keeper[classes[moved]], position_ranks(classes)[moved])
            np.add.at(columns, target, surgeon.columns(contraction)[(moved + 1) % len(columns)])
            surgeon.set_columns(contraction, columns)


@dataclass(frozen=True, slots=True)
class ForgottenBias(ConstantNeuronFolding):
    """Remove neurons that always fire, but forget what they gave to their readers."""

    name: ClassVar[str] = "forgotten-bias"

    def run(self, graph: SNNGraph, context: PassContext) -> Outcome:
        with patch.object(Surgeon, "fold", lambda *_: 0):
            return ConstantNeuronFolding.run(self, graph, context)


@dataclass(frozen=True, slots=True)
class StrictComparison(Pass):
    """Write neurons that fire at their threshold as ones that fire above it."""

    name: ClassVar[str] = "strict-comparison"
    exactness: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, graph: SNNGraph, context: PassContext) -> Outcome:
        outcome = Outcome()
        rewriter = Rewriter(graph.module)
        for node in list(graph.module.graph.nodes):
            if not ops.is_neuron(node.domain or "", node.op):
                continue
            variant = NeuronVariant.parse(node.op, node.attrs)
            if variant.fire == "ge" and context.admits("strict", node.name):
                arithmetic = variant.arithmetic.replace("ge(", "gt(")
                strict = replace(variant, fire="gt", arithmetic=arithmetic)
                rewriter.retarget(node, (ops.DOMAIN, strict.op_type), list(node.inputs), strict.attributes())
                graph.module.add_function(ops.function_proto(strict, graph.module.opset()))
                outcome.changes += 1
                context.applied("strict", node.name, "> instead of >=")
        if outcome.changes:
            rewriter.finish()
        return outcome


@dataclass(frozen=True, slots=True)
class LostEpsilon(LayerFusion):
    """Fuse batch norms as if their epsilon were zero."""

    name: ClassVar[str] = "lost-epsilon"

    def run(self, graph: SNNGraph, context: PassContext) -> Outcome:
        per_channel = linear_fusion._per_channel

        def without_epsilon(node: Node, *rest: Any) -> Any:
            blind = SimpleNamespace(domain=node.domain, op=node.op, inputs=node.inputs, attrs=dict(node.attrs))
            if node.op == "BatchNormalization":
                blind.attrs["epsilon"] = 0.0
            with np.errstate(divide="ignore"):
                return per_channel(blind, *rest)

        with patch.object(linear_fusion, "_per_channel", without_epsilon):
            return LayerFusion.run(self, graph, context)


@dataclass(frozen=True, slots=True)
class ShiftedChannel(DeadNeuronElimination):
    """Remove channels that never fire, but map them to the columns one to the right in what reads them flattened."""

    name: ClassVar[str] = "shifted-channel"

    def run(self, graph: SNNGraph, context: PassContext) -> Outcome:
        cut = Surgeon.cut

        def shifted(surgeon: Surgeon, selected: np.ndarray) -> int:
            sites = [
                replace(site, labels=np.roll(site.labels, 1)) if site.role is Role.COLUMN else site
                for site in surgeon.groups.sites
            ]
            surgeon.groups = replace(surgeon.groups, sites=sites)
            return cut(surgeon, selected)

        with patch.object(Surgeon, "cut", shifted):
            return DeadNeuronElimination.run(self, graph, context)


@dataclass(frozen=True, slots=True)
class ForgottenReset(RedundancyElimination):
    """Merge neurons that have the same incoming weights and threshold, whatever they are reset to."""

    name: ClassVar[str] = "forgotten-reset"

    def run(self, graph: SNNGraph, context: PassContext) -> Outcome:
        compute = Duplicates.compute

        def without_resets(module: Module, analyses: AnalysisManager) -> Duplicates:
            groups = analyses.get(UnitGroups)
            blind = replace(groups, sites=[site for site in groups.sites if not _is_reset(site)])
            return compute(module, SimpleNamespace(get=lambda _: blind))

        fresh = replace(context, analyses=AnalysisManager(graph.module, context.analyses.domain))
        with patch.object(Duplicates, "compute", without_resets):
            return RedundancyElimination.run(self, graph, fresh)


def _is_reset(site: Site) -> bool:
    node = site.use.node
    if not ops.is_neuron(node.domain or "", node.op):
        return False
    return NeuronVariant.parse(node.op, node.attrs).inputs[site.use.slot] == "v_reset"


BROKEN: dict[str, type[Pass]] = {
    one.name: one for one in (WrongColumn, ForgottenBias, StrictComparison, LostEpsilon, ShiftedChannel, ForgottenReset)
}


@dataclass(frozen=True, slots=True)
class OneStrictStep(Pass):
    """Write one comparison of an unrolled network, at one step of one layer, as a strict one."""

    name: ClassVar[str] = "one-strict-step"
    exactness: ClassVar[Exactness] = Exactness.BITWISE

    at: str = ""

    def run(self, graph: SNNGraph, context: PassContext) -> Outcome:
        outcome = Outcome()
        rewriter = Rewriter(graph.module)
        for node in graph.module.graph.nodes:
            if node.op == "GreaterOrEqual" and context.admits("compared", node.outputs[0].name):
                outcome.changes += 1
                context.applied("compared", node.outputs[0].name, "looked at")
                if node.outputs[0].name == self.at:
                    rewriter.retarget(node, "Greater", list(node.inputs))
        rewriter.finish()
        return outcome


@dataclass(frozen=True, slots=True)
class CrashesOnNorms(Pass):
    """Raise where there is a batch norm."""

    name: ClassVar[str] = "crashes-on-norms"
    exactness: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, graph: SNNGraph, context: PassContext) -> Outcome:
        for node in graph.module.graph.nodes:
            if node.op == "BatchNormalization":
                raise IndexError(f"at {node.name}")
        return Outcome()


@dataclass(frozen=True, slots=True)
class Crashes(Pass):
    """Raise something that is not ours."""

    name: ClassVar[str] = "crashes"
    exactness: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, graph: SNNGraph, context: PassContext) -> Outcome:
        raise ZeroDivisionError("by zero")


def network(broken: str) -> onnx.ModelProto:
    """Return a network in which a pass finds something to do wrong: `x` [8, batch, 8] to `spikes`."""
    rng = np.random.default_rng(3)
    first = (rng.integers(-4, 9, (12, 8)) / 8).astype(np.float32)
    second = (rng.integers(-4, 7, (4, 12)) / 8).astype(np.float32)
    biases = [np.zeros(12, np.float32), np.zeros(4, np.float32)]
    if broken == "wrong-column":
        first[7] = first[2]
    elif broken == "forgotten-bias":
        biases[0][5] = 30
        second[:, 5] = [1, 1, -1, -1]
    elif broken == "lost-epsilon":
        return _normalised(first, second)
    elif broken == "shifted-channel":
        return _with_a_silent_channel()
    elif broken == "forgotten-reset":
        return _with_two_resets(first, second, biases)
    variant = LIF_GE if broken == "strict-comparison" else LIF
    return mlp((8, 12, 4), steps=8, variant=variant, weights=[first, second], biases=biases, beta=0.5)


def _with_a_silent_channel() -> onnx.ModelProto:
    model = conv(channels=4)
    kernel, bias = initializer(model, "conv1.weight"), initializer(model, "conv1.bias")
    kernel[1], bias[1] = 0, -1
    return with_initializer(with_initializer(model, "conv1.weight", kernel), "conv1.bias", bias)


def _with_two_resets(first: np.ndarray, second: np.ndarray, biases: list[np.ndarray]) -> onnx.ModelProto:
    """Return a network with two neurons of the same drive, one of which is reset far below."""
    first[7] = first[2]
    resets = np.zeros(12, np.float32)
    resets[7] = -2
    variant = NeuronVariant("LIF", reset="to-value")
    model = mlp((8, 12, 4), steps=8, variant=variant, weights=[first, second], biases=biases, beta=0.5)
    tensor = next(one for one in model.graph.initializer if one.name == "lif1.v_reset")
    tensor.CopyFrom(onnx.numpy_helper.from_array(resets, tensor.name))
    return model


def _normalised(first: np.ndarray, second: np.ndarray) -> onnx.ModelProto:
    """Return a network with a batch norm whose variances are about as small as its epsilon."""
    net = ModelBuilder()
    units = len(first)
    rows = net.reshape(net.input("x", (8, "batch", first.shape[1])), "rows", (-1, first.shape[1]))
    current = net.linear("fc1", rows, first * 0.1)
    numbers = {"scale": 1.0, "shift": 0.25, "mean": 0.1, "variance": 0.01}
    parameters = [net.constant(f"norm.{name}", np.full(units, value)) for name, value in numbers.items()]
    current = net.node("BatchNormalization", [current, *parameters], "norm.out", name="norm", epsilon=0.01)
    spikes = net.neuron("lif1", LIF, net.reshape(current, "lif1.x", (8, -1, units)))[0]
    current = net.linear("fc2", net.reshape(spikes, "spike.rows", (-1, units)), second)
    net.neuron("lif2", LIF, net.reshape(current, "lif2.x", (8, -1, len(second))), outputs=("spikes", "lif2.v"))
    net.output("spikes", (8, "batch", len(second)))
    return net.build()


@contextmanager
def registered(folder: Path) -> Iterator[None]:
    """Install the broken passes as a distribution in a folder would."""
    info = folder / "broken_passes-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-passes\nVersion: 0.1\n")
    passes = (*BROKEN.values(), OneStrictStep, CrashesOnNorms)
    entries = [f"{one.name} = {one.__module__}:{one.__name__}" for one in passes]
    (info / "entry_points.txt").write_text("\n".join([f"[{registry.GROUP}]", *entries]) + "\n")
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(folder))
        registry._table.cache_clear()
        yield
    registry._table.cache_clear()
