"""Interfaces that do not agree."""

from __future__ import annotations

import pytest

from snn_optimizer.execution import Session
from snn_optimizer.verification import Verdict, interface_difference, verify
from tests.support import models


def network(*, inputs=("x",), outputs=("y",), dtype="float", shape="T, batch, 3"):
    builder = models.ModelBuilder()
    kinds = {"float": "float32", "double": "float64"}
    sizes = [int(size) if size.isdigit() else size for size in shape.split(", ")]
    for name in inputs:
        builder.input(name, sizes, kinds[dtype])
    for name in outputs:
        builder.node("Neg", [inputs[0]], name)
        builder.output(name, sizes, kinds[dtype])
    return builder.build()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ({"outputs": ("y", "z")}, {"outputs": ("y",)}, "output 'z' is gone"),
        ({"outputs": ("y",)}, {"outputs": ("w",)}, "output 'y' is gone"),
        ({"outputs": ("y",)}, {"outputs": ("y", "z")}, "output 'z' is new"),
        ({"outputs": ("y", "z")}, {"outputs": ("z", "y")}, "the outputs are in another order: z, y instead of y, z"),
        ({"inputs": ("x", "u")}, {"inputs": ("x",)}, "input 'u' is gone"),
        ({"inputs": ("x", "u")}, {"inputs": ("u", "x")}, "the inputs are in another order"),
        ({}, {"dtype": "double"}, "input 'x' is float64 instead of float32"),
        ({}, {"shape": "T, batch, 4"}, r"input 'x' is float32[T, batch, 4] instead of float32[T, batch, 3]"),
        ({}, {"shape": "T, 1, 3"}, "input 'x' is float32[T, 1, 3] instead of float32[T, batch, 3]"),
        ({}, {"shape": "batch, 3"}, "input 'x' is float32[batch, 3] instead of"),
    ],
)
def test_differences(before, after, message):
    found = interface_difference(Session(network(**before)), Session(network(**after)))
    assert message in found
    result = verify(network(**before), network(**after))
    assert result.verdict is Verdict.DIFFERENT
    assert result.reason == found
    assert result.values_compared == 0


@pytest.mark.parametrize("after", [{}, {"shape": "steps, n, 3"}])
def test_agreement(after):
    assert interface_difference(Session(network()), Session(network(**after))) is None


def test_a_size_may_be_opened():
    assert interface_difference(Session(network(shape="T, 1, 3")), Session(network())) is None
