"""Whatever is claimed about spikes holds on inputs that try to refute it, for networks hypothesis makes up."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from snn_optimizer.ir import InputDomain
from tests.support.tiny_networks import ALL_INPUTS, all_inputs, claims_of, network, random_layers, some_inputs


@given(
    seed=st.integers(0, 2**32 - 1),
    features=st.integers(1, 9),
    steps=st.integers(1, 8),
    depth=st.integers(1, 3),
    limit=st.none() | st.integers(1, 3),
    declared=st.booleans(),
    rows=st.booleans(),
    recurrent=st.booleans(),
)
def test_claims_hold(
    seed: int, features: int, steps: int, depth: int, limit: int | None, declared: bool, rows: bool, recurrent: bool
) -> None:
    generator = np.random.default_rng(seed)
    layers = random_layers(generator, features, depth=depth, recurrent=recurrent)
    run = steps if declared else 3 * steps
    if run * features <= min(ALL_INPUTS, 10):
        inputs = all_inputs(run, features, limit)
    else:
        inputs = some_inputs(generator, run, features, limit, layers, samples=100)
    model = network(layers, steps if declared else "T", rows=rows)
    for number, claims in enumerate(claims_of(model, depth, inputs, InputDomain(max_active=limit))):
        assert claims.violated() is None, (number, layers[number])
