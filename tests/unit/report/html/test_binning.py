"""Images of large arrays: means of blocks as a loop over every element finds them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snn_optimizer.report.html import binning
from snn_optimizer.report.html.binning import block_means, shrunk


@given(st.integers(1, 40), st.integers(1, 30), st.integers(1, 50), st.integers(1, 40), st.integers(1, 300))
def test_means_of_blocks(rows: int, columns: int, height: int, width: int, chunk: int) -> None:
    array = np.random.default_rng(rows * columns).normal(size=(rows, columns))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binning, "_CHUNK", chunk)
        found = block_means(array, (height, width), np.abs)
    expected = [
        [np.abs(array[top : top + height, left : left + width]).mean() for left in range(0, columns, width)]
        for top in range(0, rows, height)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_what_is_small_is_shown_as_it_is() -> None:
    array = np.arange(-6.0, 6).reshape(3, 4)
    image = shrunk(array, (3, 4), np.abs)
    assert not image.binned
    np.testing.assert_array_equal(image.values, array)


def test_what_is_large_stays_within_the_limit() -> None:
    image = shrunk(np.full((10_000, 777), -2.0, np.float32), (128, 192), np.abs)
    assert image.binned
    assert (image.block, image.shape) == ((79, 5), (10_000, 777))
    assert image.values.shape == (127, 156)
    assert (image.values == 2).all()


def test_nothing() -> None:
    assert shrunk(np.zeros((0, 5)), (10, 10)).values.shape == (0, 5)
