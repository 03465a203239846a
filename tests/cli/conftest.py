"""The command line, called in process."""

from __future__ import annotations

import pytest

from snn_optimizer.cli.main import run


@pytest.fixture
def snnopt(capsys):
    """Call ``snnopt`` with arguments; returns the exit code and what it printed to either stream."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = run([str(a) for a in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
