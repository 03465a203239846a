"""Paths and profiles that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]

settings.register_profile(
    "ci", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile("ci")


@pytest.fixture(scope="session")
def models() -> Path:
    """The folder of the sample models."""
    return ROOT / "models"


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of framework exports; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("SNN_CORPUS", ROOT.parent / "shared" / "corpus"))
    if not folder.is_dir():
        pytest.skip(f"no corpus of framework exports at '{folder}'; set SNN_CORPUS")
    return folder


@pytest.fixture(scope="module")
def broken_passes(tmp_path_factory):
    """Passes with known mistakes, installed as another distribution's would be."""
    from tests.support.broken_passes import registered

    with registered(tmp_path_factory.mktemp("distribution")):
        yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures that tests recorded, those of other processes too."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for title, text in getattr(report, "user_properties", []) if report.when == "call" else []:
                terminalreporter.section(f"{title}: {report.nodeid}")
                terminalreporter.write_line(str(text))
