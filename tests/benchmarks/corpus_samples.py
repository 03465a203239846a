"""Samples of the corpus's digit networks: those they were trained on, and test samples they never saw.

The corpus stores 64 test samples per network. Its networks were trained on scikit-learn's digits, three quarters of them,
chosen by ``train_test_split(test_size=0.25, stratify=labels, random_state=0)``; that the stored samples are the first
of the other quarter is checked here.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from snn_optimizer.execution import Dataset, Session

__all__ = ["COMPRESSED", "corpus_samples"]

COMPRESSED = (
    "snntorch_pruned_l1_T25__ts",
    "snntorch_wide_1000_T10__dynamo",
    "snntorch_conv_bn_T10__dynamo",
    "norse_conv_lif_T10__ts",
    "sj2_conv_bn_if_m_T4__dynamo",
)


def corpus_samples(folder: Path) -> tuple[Dataset, Dataset]:
    """Return calibration and test samples of one network."""
    pixels, labels = load_digits(return_X_y=True)
    pixels = (pixels / 16).astype(np.float32)
    train, test = train_test_split(np.arange(len(labels)), test_size=0.25, stratify=labels, random_state=0)
    stored = np.load(folder / "inputs.npz")
    if not np.array_equal(stored["labels"], labels[test[: len(stored["labels"])]]):
        raise SystemExit(f"{folder}: its samples are not the first test samples of the digits")
    encoding = json.loads((folder / "meta.json").read_text(encoding="utf-8"))["encoding"]
    session = Session(folder / "model.onnx")
    return (
        _encoded(session, pixels[train], labels[train], encoding, stored["x"], seed=1),
        _encoded(session, pixels[test], labels[test], encoding, stored["x"], seed=2),
    )


def _encoded(
    session: Session, pixels: np.ndarray, labels: np.ndarray, encoding: str, stored: np.ndarray, *, seed: int
) -> Dataset:
    if encoding.startswith("direct current"):
        x = pixels.reshape(len(pixels), *stored.shape[1:])
    elif encoding.startswith("Bernoulli"):
        rng = np.random.default_rng(seed)
        steps = len(stored)
        x = (rng.random((steps, *pixels.shape)) < pixels).astype(np.float32).reshape(steps, -1, *stored.shape[2:])
    else:
        raise SystemExit(f"the encoding '{encoding}' is not known here")
    return Dataset.from_arrays({"x": x}, session.inputs, labels)
