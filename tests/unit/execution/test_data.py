"""Data files and what is wrong with them."""

from __future__ import annotations

import numpy as np
import pytest

from snn_optimizer.errors import DataError, OutputError
from snn_optimizer.execution import Dataset, Port, Session, load_dataset
from snn_optimizer.execution.data import read_arrays, save_arrays
from tests.support import models

FLOAT = np.dtype(np.float32)
INPUTS = (Port("x", FLOAT, ("T", "batch", 8)),)


def trains(*shape: int) -> np.ndarray:
    return models.spike_trains(*shape)


def test_time_major_samples_and_labels(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=trains(5, 7, 8), labels=np.arange(7))
    data = load_dataset(path, INPUTS)
    assert (data.samples, data.steps, dict(data.batch_axes)) == (7, 5, {"x": 1})
    parts = list(data.batches(3))
    assert [part.samples for part in parts] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate([part.feeds["x"] for part in parts], axis=1), data.feeds["x"])
    np.testing.assert_array_equal(np.concatenate([part.labels for part in parts]), np.arange(7))


def test_take_follows_the_order_of_the_indices():
    data = Dataset.from_arrays({"x": trains(5, 7, 8)}, INPUTS, np.arange(7)).take([4, 1, 4])
    np.testing.assert_array_equal(data.labels, [4, 1, 4])
    np.testing.assert_array_equal(data.feeds["x"], trains(5, 7, 8)[:, [4, 1, 4]])


def test_an_input_all_samples_share_stays_whole():
    ports = (*INPUTS, Port("v0", FLOAT, (16,)))
    data = Dataset.from_arrays({"x": trains(5, 16, 8), "v0": np.zeros(16)}, ports)
    assert data.batch_axes["v0"] is None
    assert next(data.batches(2)).feeds["v0"].shape == (16,)
    assert data.samples == 16


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_fixed_batch_is_filled_exactly(count):
    model = models.mlp((8, 4), batch=2)
    data = Dataset.from_arrays({"x": trains(5, 2 * count, 8)}, Session(model).inputs)
    assert [part.samples for part in data.batches(64)] == [2] * count
    with pytest.raises(DataError, match="axis 1 must be a multiple of 2"):
        Dataset.from_arrays({"x": trains(5, 3, 8)}, Session(model).inputs)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.array([[[0, 1]]], np.uint8), np.float32),
        (np.array([[[False, True]]]), np.float32),
        (np.array([[[0.0, 0.5]]], np.float64), np.float32),
        (np.array([[[0.0, 1.0]]], np.float32), np.int8),
        (np.array([[[0, 1]]], np.int64), np.bool_),
    ],
)
def test_types_are_converted_where_nothing_is_lost(values, kind):
    data = Dataset.from_arrays({"x": values}, (Port("x", np.dtype(kind), ("T", "batch", 2)),))
    assert data.feeds["x"].dtype == kind
    np.testing.assert_array_equal(data.feeds["x"], values)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "no array 'x'; the model takes x"),
        ({"x": trains(2, 3, 8), "y": trains(1)}, "array 'y' is no input of the model, which takes x"),
        ({"x": trains(3, 8)}, r"array 'x' has shape \(3, 8\), the model takes 3 axes: float32\[T, batch, 8\]"),
        ({"x": trains(2, 3, 9)}, "axis 2 must be 8"),
        ({"x": trains(2, 0, 8)}, r"array 'x' is empty, its shape is \(2, 0, 8\)"),
        ({"x": np.full((2, 3, 8), np.nan)}, "array 'x' holds NaN or infinite values"),
        ({"x": np.full((2, 3, 8), 0.1)}, "array 'x' is float64 and holds values that float32 cannot"),
        ({"x": np.full((2, 3, 8), "1")}, "array 'x' is <U1, the model takes float32"),
        ({"x": np.full((2, 3, 8), 1j)}, "array 'x' is complex128"),
        ({"x": trains(2, 3, 8), "labels": np.arange(2)}, "there are 2 labels for 3 samples"),
        ({"x": trains(2, 3, 8), "labels": np.zeros((3, 1))}, r"labels must be one integer per sample, not float64"),
        ({"x": trains(2, 3, 8), "labels": np.array([0, 0.5, 1])}, "labels must be integers"),
        ({"x": trains(2, 3, 8), "labels": np.array([0, np.nan, 1])}, "labels must be integers"),
        ({"x": np.array([{}], object)}, "not an .npz file of plain arrays"),
    ],
)
def test_one_clear_line(tmp_path, arrays, message):
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(path, INPUTS)
    assert str(caught.value).startswith(f"'{path}': ")
    assert "\n" not in str(caught.value)


def test_inputs_must_agree_on_the_number_of_samples():
    ports = (*INPUTS, Port("v0", FLOAT, ("batch", 4)))
    with pytest.raises(DataError, match="array 'x' holds 3 samples, array 'v0' 2"):
        Dataset.from_arrays({"x": trains(2, 3, 8), "v0": trains(2, 4)}, ports)


def test_an_input_may_be_called_labels(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, labels=trains(2, 3, 8))
    data = load_dataset(path, (Port("labels", FLOAT, ("T", "batch", 8)),))
    assert data.labels is None
    assert data.samples == 3


def test_files_that_cannot_be_read(tmp_path):
    damaged = tmp_path / "damaged.npz"
    np.savez_compressed(damaged, x=trains(20, 30, 8))
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 0xFF
    damaged.write_bytes(content)
    truncated = tmp_path / "truncated.npz"
    truncated.write_bytes(bytes(content[: len(content) // 2]))
    text = tmp_path / "text.npz"
    text.write_text("x = 1")
    empty = tmp_path / "empty.npz"
    empty.touch()
    for path in (damaged, truncated, text, empty):
        with pytest.raises(DataError, match=r"not an \.npz file of plain arrays, or damaged"):
            read_arrays(path)
    single = tmp_path / "single.npy"
    np.save(single, trains(2))
    with pytest.raises(DataError, match="a single array"):
        read_arrays(single)
    with pytest.raises(DataError, match="no such file"):
        read_arrays(tmp_path / "absent.npz")
    with pytest.raises(DataError, match="cannot be read"):
        read_arrays(tmp_path)


def test_files_are_written_whole_and_equal(tmp_path):
    arrays = {"x": trains(3), "file": trains(2)}
    first, second = tmp_path / "a.npz", tmp_path / "b.npz"
    save_arrays(first, arrays)
    save_arrays(second, arrays)
    assert first.read_bytes() == second.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"a.npz", "b.npz"}
    np.testing.assert_array_equal(read_arrays(first)["file"], arrays["file"])
    with pytest.raises(OutputError):
        save_arrays(tmp_path / "absent" / "c.npz", arrays)
