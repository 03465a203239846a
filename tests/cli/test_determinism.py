"""The same model and options give the same bytes: under any hash seed and any number of threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

MODELS = ("digits_mlp", "digits_conv", "digits_recurrent", "exports/digits_unrolled", "exports/digits_step")
LEVELS = {
    "O0": (),
    "O1": (),
    "O2": (),
    "O3": ("--calib", "{data}"),
    "Oz": ("--calib", "{data}", "--max-decision-change", "0.05"),
}
SURROUNDINGS = (("0", "1"), ("1", "2"), ("4242", "4"))  # hash seed, threads
LONG = frozenset({("digits_conv", "Oz"), ("digits_recurrent", "Oz"), ("exports/digits_step", "Oz")})
CASES = [(model, level) for model in MODELS for level in LEVELS if (model, level) not in LONG]


def samples(model: str, models: Path, folder: Path) -> Path:
    if model == "exports/digits_step":
        first = np.load(models / "digits_mlp.calib.npz")["x"][0]
        states = {f"mem{n}": np.zeros((len(first), width), np.float32) for n, width in ((1, 128), (2, 10))}
        np.savez(folder / "step.npz", x=first, **states)
        return folder / "step.npz"
    return models / ("digits_mlp.calib.npz" if "/" in model else f"{model}.calib.npz")


def surrounded(arguments: list[str], seed: str, threads: str) -> None:
    counts = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
    done = subprocess.run(
        [sys.executable, "-m", "snn_optimizer", *arguments],
        env={**os.environ, **counts, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("model", "level"), CASES)
def test_the_same_bytes(model: str, level: str, models: Path, tmp_path: Path) -> None:
    path = models / f"{model}.onnx"
    data = samples(model, models, tmp_path)
    options = [word.format(data=data) for word in LEVELS[level]]
    found = set()
    for seed, threads in SURROUNDINGS:
        out, remarks = tmp_path / f"{seed}.onnx", tmp_path / f"{seed}.jsonl"
        words = ["optimize", str(path), "-o", str(out), f"-{level}", *options, "--remarks-output", str(remarks), "-q"]
        surrounded(words, seed, threads)
        found.add((out.read_bytes(), remarks.read_bytes()))
    assert len(found) == 1


@pytest.mark.slow
def test_the_same_profile(models: Path, tmp_path: Path) -> None:
    found = set()
    for seed, threads in SURROUNDINGS:
        out = tmp_path / f"{seed}.npz"
        data = models / "digits_conv.calib.npz"
        surrounded(
            ["profile", str(models / "digits_conv.onnx"), "--data", str(data), "-o", str(out), "-q"], seed, threads
        )
        found.add(out.read_bytes())
    assert len(found) == 1
