"""A git repository with a model and its budget, and a branch on which the model got worse."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

BUDGET = """\
[project]
name = "sample"

[tool.snnopt.gate]
models = ["models/*.onnx"]
baseline = "main"
data = "models/{stem}.calib.npz"
bytes = "+2%"
neurons = "+0"
synapses = "20k"
could-be-smaller = "5%"

[tool.snnopt.gate.warn]
nodes = "-1"
"""


def git(folder: Path, *arguments: str) -> str:
    """Run git as nobody in particular, without the caller's configuration."""
    environment = os.environ | {
        "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.org",
        "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.org",
    }  # fmt: skip
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, env=environment
    )
    return done.stdout.strip()


def commit(folder: Path, message: str = "a step") -> str:
    """Commit everything, and return the hash."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)
    return git(folder, "rev-parse", "HEAD")


def make_repository(folder: Path, models: Path, budget: str = BUDGET) -> Path:
    """Make a repository with one model on ``main``; a branch ``change`` is checked out, and the same."""
    (folder / "models").mkdir(parents=True)
    shutil.copy(models / "digits_mlp.onnx", folder / "models" / "net.onnx")
    shutil.copy(models / "digits_mlp.calib.npz", folder / "models" / "net.calib.npz")
    (folder / "pyproject.toml").write_text(budget)
    git(folder, "init", "--quiet", "--initial-branch=main", ".")
    commit(folder, "A model and its budget")
    git(folder, "checkout", "--quiet", "-b", "change")
    return folder


def make_regression(folder: Path, models: Path) -> None:
    """Replace the model by a wider one that was pruned by zeros, so that it is larger and could be smaller."""
    shutil.copy(models / "digits_pruned.onnx", folder / "models" / "net.onnx")
    commit(folder, "A wider network")
