"""Nodes without a state against NumPy."""

from __future__ import annotations

import nir
import numpy as np
import pytest

from snn_optimizer.errors import UnsupportedModelError
from snn_optimizer.nir import Discretization, export, load
from tests.support.nir_networks import DT, chain, datasets, opened, run, same, trains, written


def weights(*shape):
    return np.random.default_rng([5, *shape]).normal(size=shape).astype(np.float32)


def convolved(x, weight, bias, stride, pads, dilation):
    """Correlate the last axes of x with kernels, one output at a time."""
    axes = weight.ndim - 2
    x = np.pad(x, [(0, 0), (0, 0), *pads])
    reach = [d * (n - 1) + 1 for d, n in zip(dilation, weight.shape[2:], strict=True)]
    sizes = [(size - r) // s + 1 for size, r, s in zip(x.shape[2:], reach, stride, strict=True)]
    out = np.zeros((x.shape[0], weight.shape[0], *sizes))
    for place in np.ndindex(*sizes):
        window = tuple(slice(p * s, p * s + r, d) for p, s, r, d in zip(place, stride, reach, dilation, strict=True))
        patch = x[(slice(None), slice(None), *window)].astype(np.float64)
        out[(slice(None), slice(None), *place)] = np.tensordot(patch, weight, (range(1, axes + 2),) * 2) + bias
    return out


def flat_run(node, x, folder):
    """Run a node, time and batch joined; an integrator beside it makes it a network over time."""
    shape = np.array(x.shape[1:])
    graph = nir.NIRGraph(
        nodes={
            "in": nir.Input(shape), "node": node, "a": nir.Output(None), "beside": nir.I(np.ones(shape)),
            "b": nir.Output(shape),
        },
        edges=[("in", "node"), ("node", "a"), ("in", "beside"), ("beside", "b")],
    )  # fmt: skip
    network = opened(graph, folder)
    found, beside = run(network, x.reshape(2, -1, *x.shape[1:]))
    np.testing.assert_array_equal(beside[1], x.reshape(2, -1, *x.shape[1:]).sum(0))
    return found.reshape(-1, *found.shape[2:]), network


def back_is_same(network, folder):
    """Tell whether writing the network again gives the file it came from."""
    made = export(network.graph, network.time, network)
    assert made.check.changed == 0
    return same(datasets(folder / "net.nir"), datasets(made.data)) == []


def test_linear_and_affine(tmp_path):
    weight, bias = weights(3, 5), weights(3)
    x = trains((6, 5))
    for node, expected in ((nir.Linear(weight), x @ weight.T), (nir.Affine(weight, bias), x @ weight.T + bias)):
        found, network = flat_run(node, x, tmp_path)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert back_is_same(network, tmp_path)


@pytest.mark.parametrize(
    ("stride", "padding", "dilation"),
    [((1, 1), (0, 0), (1, 1)), ((2, 1), (1, 2), (1, 1)), ((1, 1), (0, 1), (2, 1)), ((1, 1), "same", (1, 2)),
     ((2, 2), "valid", (1, 1))],
)  # fmt: skip
def test_conv2d(stride, padding, dilation, tmp_path):
    weight, bias = weights(4, 2, 3, 2), weights(4)
    x = trains((4, 2, 8, 7))
    node = nir.Conv2d((8, 7), weight, stride, padding, dilation, 1, bias)
    pads = [(p, p) for p in padding] if not isinstance(padding, str) else [(0, 0), (0, 0)]
    if padding == "same":
        pads = [(1, 1), (1, 1)]
    found, network = flat_run(node, x, tmp_path)
    expected = convolved(x, weight, bias, stride, pads, dilation)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert back_is_same(network, tmp_path)


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 1, 1), (1, 2, 2)])
def test_conv1d(stride, padding, dilation, tmp_path):
    weight, bias = weights(4, 2, 3), weights(4)
    x = trains((4, 2, 9))
    node = nir.Conv1d(9, weight, stride, padding, dilation, 1, bias)
    found, network = flat_run(node, x, tmp_path)
    expected = convolved(x, weight, bias, [stride], [(padding, padding)], [dilation])
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert back_is_same(network, tmp_path)


@pytest.mark.parametrize("kernel", [(2, 2), (3, 2)])
@pytest.mark.parametrize("kind", ["SumPool2d", "AvgPool2d"])
def test_pooling_counts_the_padding(kind, kernel, tmp_path):
    node = getattr(nir, kind)(np.array(kernel), np.array([2, 1]), np.array([1, 1]))
    x = trains((4, 3, 6, 5))
    found, network = flat_run(node, x, tmp_path)
    ones = np.eye(3)[:, :, None, None] * np.ones(kernel)
    expected = convolved(x, ones, np.zeros(3), (2, 1), [(1, 1), (1, 1)], (1, 1))
    np.testing.assert_allclose(found, expected / (1 if kind == "SumPool2d" else np.prod(kernel)), atol=1e-5)
    assert back_is_same(network, tmp_path)


@pytest.mark.parametrize(
    ("start", "end", "shape"), [(0, -1, (24,)), (1, -1, (2, 12)), (0, 1, (6, 4)), (1, 1, (2, 3, 4))]
)
def test_flatten(start, end, shape, tmp_path):
    x = trains((4, 2, 3, 4))
    found, network = flat_run(nir.Flatten({"input": np.array([2, 3, 4])}, start, end), x, tmp_path)
    np.testing.assert_array_equal(found, x.reshape(4, *shape))
    if shape != (2, 3, 4):  # one axis made of one axis is nothing: not written back
        assert back_is_same(network, tmp_path)


def test_scale_and_threshold(tmp_path):
    factor = weights(2, 3)
    x = trains((6, 2, 3))
    found, network = flat_run(nir.Scale(factor), x, tmp_path)
    np.testing.assert_array_equal(found, x * factor)
    assert back_is_same(network, tmp_path)
    found, network = flat_run(nir.Threshold(np.array([[0.5, 1.0, -1.0], [0.0, 2.0, 0.9]])), x, tmp_path)
    np.testing.assert_array_equal(found, x > np.array([[0.5, 1.0, -1.0], [0.0, 2.0, 0.9]]))
    assert back_is_same(network, tmp_path)


@pytest.mark.parametrize("steps", [[0, 1, 3], [2, 2, 2], [0, 0, 0]])
def test_delay(steps, tmp_path):
    node = nir.Delay(np.array(steps) * DT)
    x = trains((9, 2, 3))
    network = opened(chain(node), tmp_path)
    (found,) = run(network, x)
    for unit, late in enumerate(steps):
        np.testing.assert_array_equal(found[late:, :, unit], x[: len(x) - late, :, unit])
        assert not found[:late, :, unit].any()
    if any(steps):  # no delay at all is a wire
        assert back_is_same(network, tmp_path)


@pytest.mark.parametrize(("delay", "message"), [(0.4 * DT, "no whole numbers of steps"), (1e5 * DT, "at most 10,000")])
def test_a_delay_is_a_bearable_number_of_steps(delay, message, tmp_path):
    with pytest.raises(UnsupportedModelError, match=message):
        opened(chain(nir.Delay(np.full(2, delay))), tmp_path)


def test_padding_same_needs_stride_one(tmp_path):
    node = nir.Conv2d((8, 8), weights(1, 1, 3, 3), (2, 2), "same", (1, 1), 1, weights(1))
    with pytest.raises(UnsupportedModelError, match=r"'conv2d'.*padding 'same' and a stride above 1"):
        opened(chain(node), tmp_path)


def test_a_weight_is_a_matrix(tmp_path):
    path = written(chain(nir.Linear(weights(2, 3, 4))), tmp_path)
    with pytest.raises(UnsupportedModelError, match=r"node 'linear' \(Linear\) has a weight of 3 axes"):
        load(path, Discretization(DT))
