"""A Chromium of the machine, offline, and the pages it looks at."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from snn_optimizer.cli.main import run

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
WIDE, NARROW = {"width": 1200, "height": 900}, {"width": 360, "height": 740}


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """A browser context with a profile of its own."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium on this machine; install the package 'chromium'")
    with playwright.sync_playwright() as tools:
        context = tools.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("chromium"), executable_path=path, args=list(FLAGS), viewport=WIDE
        )
        yield context
        context.close()


@pytest.fixture(scope="session")
def pages(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports of two of the sample models."""
    folder = tmp_path_factory.mktemp("reports")
    for name in ("digits_residual", "digits_wide"):
        model, data = models / f"{name}.onnx", models / f"{name}.calib.npz"
        arguments = ["optimize", model, "-O2", "--calib", data, "--dry-run", "-q"]
        assert run([*map(str, arguments), "--report", str(folder / f"{name}.html")]) == 0
    return {path.stem: path for path in folder.iterdir()}


class Watched:
    """A page, with everything it complained about and asked for."""

    def __init__(self, context, path: Path, *, size: dict[str, int] = WIDE, scheme: str = "light") -> None:
        self.page = context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.set_viewport_size(size)
        self.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        self.page.goto(path.as_uri())


@pytest.fixture
def visit(browser, pages: dict[str, Path]) -> Iterator[object]:
    """Open a report; it is closed after the test, and must not have complained or asked for anything."""
    opened: list[Watched] = []

    def call(name: str | Path, **more: object):
        path = name if isinstance(name, Path) else pages[name]
        watched = Watched(browser, path, **more)
        opened.append(watched)
        return watched.page

    yield call
    for watched in opened:
        watched.page.close()
        assert watched.complaints == []
        outside = [url for url in watched.requests if not url.startswith(("file:", "data:"))]
        assert (outside, len([url for url in watched.requests if url.startswith("file:")])) == ([], 1)
