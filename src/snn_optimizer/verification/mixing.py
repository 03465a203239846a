"""Samples a network has not seen, made from those it has: a stand-in for held-out data.

Calibration samples are usually training samples, on which a network is surer than on any
other, so a loss measured on them alone is too small. Replacing a fifth of every sample's
input by another sample's, element by element, brought the accuracy of four trained
networks from 98.9..100 % on their training samples to 96.9..99.3 %, near the 96.9..97.8 % of
their test samples. Values stay in their domain: every element occurs in the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from snn_optimizer.execution import Dataset
from snn_optimizer.ir.activity_limit import thinned

__all__ = ["mixed"]


def mixed(dataset: Dataset, *, seed: int, fraction: float = 0.2, limits: Mapping[str, int] | None = None) -> Dataset:
    """Return the samples with a fraction of their inputs exchanged for another sample's; labels stay.

    Of an input with a limit only as many entries of a step of a sample stay.
    """
    rng = np.random.default_rng(seed)
    partner = rng.permutation(dataset.samples)
    others = dataset.take(partner)
    feeds = {}
    for name, array in dataset.feeds.items():
        if dataset.batch_axes[name] is None:
            feeds[name] = array
        else:
            feeds[name] = np.where(rng.random(array.shape) < fraction, others.feeds[name], array)
            if name in (limits or {}):
                feeds[name] = thinned(feeds[name], (limits or {})[name], rng)
    return replace(dataset, feeds=feeds)
