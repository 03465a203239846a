"""The digits data set as spike trains: one fixed split, Bernoulli rate coding, the files beside a model."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

STEPS = 16
CLASSES = 10
SAMPLES_PER_FILE = 450
BRIGHTEST_PIXEL = 16.0
DATASET = f"scikit-learn digits (UCI optical recognition of handwritten digits), Bernoulli rate code, T={STEPS}"
LICENSE = "UCI optical recognition of handwritten digits, CC BY 4.0, as shipped by scikit-learn (BSD-3-Clause)"

_SPLIT_SEED = 20240
_CALIBRATION_SEED = 20241
_TEST_SEED = 20242

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Half:
    """One half of the data: firing probabilities of the 64 pixels, and the digits."""

    probabilities: Floats
    labels: Labels


def load_halves() -> tuple[Half, Half]:
    """Return the training and the test half, stratified by digit."""
    pixels, labels = load_digits(return_X_y=True)
    probabilities = (pixels / BRIGHTEST_PIXEL).astype(np.float32)
    train_x, test_x, train_y, test_y = train_test_split(
        probabilities, labels.astype(np.int64), test_size=0.5, stratify=labels, random_state=_SPLIT_SEED
    )
    return Half(train_x, train_y), Half(test_x, test_y)


def encode(probabilities: Floats, generator: np.random.Generator) -> Floats:
    """Draw the spike trains [T, samples, 64]: pixel p fires at each step with probability p."""
    uniform = generator.random((STEPS, *probabilities.shape), dtype=np.float32)
    return (uniform < probabilities).astype(np.float32)


def shape_as_images(spikes: Floats) -> Floats:
    """Turn [T, samples, 64] into [T, samples, 1, 8, 8]."""
    return spikes.reshape(*spikes.shape[:2], 1, 8, 8)


def calibration_samples(train: Half, number: int = SAMPLES_PER_FILE) -> tuple[Floats, Labels]:
    """Return the encoded training samples that go beside every model."""
    return _draw(train, _CALIBRATION_SEED, number)


def held_out_samples(test: Half, number: int = SAMPLES_PER_FILE) -> tuple[Floats, Labels]:
    """Return the encoded test samples that go beside every model."""
    return _draw(test, _TEST_SEED, number)


def _draw(half: Half, seed: int, number: int) -> tuple[Floats, Labels]:
    everything = np.arange(len(half.labels))
    chosen = everything
    if number < len(everything):
        chosen, _ = train_test_split(everything, train_size=number, stratify=half.labels, random_state=seed)
    return encode(half.probabilities[chosen], np.random.default_rng(seed)), half.labels[chosen]


def write_samples(path: Path, x: Floats, labels: Labels) -> None:
    """Write `x` and `labels` the way `snnopt --calib` reads them."""
    np.savez_compressed(path, x=x, labels=labels)
