"""The command line, called in process."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from snn_optimizer.cli.main import run
from tests.support.broken_passes import network


@pytest.fixture
def snnopt(capsys):
    """Call ``snnopt`` with arguments; returns the exit code and what it printed to either stream."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = run([str(a) for a in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The file of a small network with two equal neurons."""
    path = tmp_path / "net.onnx"
    onnx.save(network("wrong-column"), path)
    return path
