"""Nothing that is proved about neurons is refuted by trying all inputs, and no rewrite of dyadic networks changes a spike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_optimizer.analyses import AnalysisManager, ValueRanges
from snn_optimizer.api import optimize
from snn_optimizer.exact.enumeration import Reachability, reachable
from snn_optimizer.exact.equivalence import verify_exhaustively
from snn_optimizer.ir import InputDomain, Module
from tests.support.tiny_networks import Layer, network, random_layers

BITS = 10


def facts_by_name(model: onnx.ModelProto, domain: InputDomain):
    module = Module.load(model)
    facts = AnalysisManager(module, domain).get(ValueRanges).facts
    nodes = [node for scope in module.scopes() if scope.kind != "function" for node in scope.graph.nodes]
    return {node.name: facts[id(node)] for node in nodes if id(node) in facts}


def refuted(facts, truth: Reachability) -> str | None:
    """What is claimed and not true."""
    shape = truth.never.shape
    never, always, highest = (np.broadcast_to(a, shape) for a in (facts.never, facts.always, facts.highest))
    if (never & ~truth.never).any():
        return "never"
    if (always & ~truth.always).any():
        return "always"
    if (never & (truth.peak > highest)).any():
        return "bound"
    return None


@st.composite
def tiny(draw) -> tuple[list[Layer], int, int | None]:
    """Layers, steps and an activity limit; leaks of 1, thresholds at or below zero and biases are frequent."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    features = draw(st.integers(1, 5))
    steps = draw(st.integers(1, max(1, BITS // features)))
    layers = random_layers(generator, features, depth=draw(st.integers(1, 3)), recurrent=draw(st.booleans()))
    beta = draw(st.sampled_from([None, None, 1.0, 0.0]))
    threshold = draw(st.sampled_from([None, None, 0.0, -0.25]))
    biased = draw(st.booleans())
    changed = []
    for layer in layers:
        changes = {} if beta is None else {"beta": np.float32(beta)}
        changes |= {} if threshold is None else {"threshold": np.float32(threshold)}
        changes |= {"bias": (generator.integers(-4, 5, layer.units) / 4).astype(np.float32)} if biased else {}
        changed.append(replace(layer, **changes))
    return changed, steps, draw(st.none() | st.integers(1, 2))


@given(case=tiny(), rows=st.booleans())
def test_no_proof_is_refuted_by_an_input(case, rows: bool) -> None:
    layers, steps, limit = case
    model, domain = network(layers, steps, rows=rows), InputDomain(max_active=limit)
    facts = facts_by_name(model, domain)
    for name, truth in reachable(model, domain=domain)[1].items():
        assert refuted(facts[name], truth) is None, (name, layers)


def test_a_wrong_proof_would_be_refuted() -> None:
    """The comparison sees each kind of false claim."""
    layers = [Layer(np.array([[1.5], [0.5]], np.float32), np.zeros(2, np.float32), beta=0.0)]
    model = network(layers, 2)
    facts, truth = facts_by_name(model, InputDomain())["pop0"], reachable(model)[1]["pop0"]
    assert refuted(facts, truth) is None
    assert refuted(replace(facts, never=np.array([True, True])), truth) == "never"
    assert refuted(replace(facts, always=np.array([True, False])), truth) == "always"
    assert refuted(replace(facts, highest=facts.highest / 2), truth) == "bound"


def dyadic(layer: Layer) -> Layer:
    """The same layer with numbers in quarters and halves, whose sums no float rounds."""
    quarters = {
        name: None
        if (value := getattr(layer, name)) is None
        else np.round(np.asarray(value) * 4).astype(np.float32) / 4
        for name in ("weights", "bias", "threshold", "lateral")
    }
    return replace(layer, **quarters, beta=np.float32(0.5), alpha=0.5)


@settings(max_examples=25)
@given(case=tiny())
def test_optimized_networks_agree_on_all_inputs(case) -> None:
    layers, steps, limit = case
    domain = InputDomain(max_active=limit)
    model = network([dyadic(layer) for layer in layers], steps)
    optimized, _ = optimize(model, level="O2", domain=domain, verify=False)
    found = verify_exhaustively(model, optimized.to_onnx(), domain=domain)
    assert str(found).startswith("EQUIVALENT on all"), (str(found), layers)
