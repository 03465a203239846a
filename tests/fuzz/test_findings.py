"""What the fuzzer found once, minimal and mended: none of it may come back."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.findings import Finding
from tests.fuzz.pipelines import cheap_gathers, main

FOLDER = Path(__file__).parent / "findings"
FOUND = sorted(FOLDER.glob("*.json"))


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_stays_mended(path: Path, tmp_path: Path) -> None:
    finding = Finding.load(path)
    assert not finding.replay(cheap_gathers(tmp_path)), finding.failure


def test_there_is_a_model_to_every_finding() -> None:
    assert FOUND
    assert {path.stem for path in FOLDER.glob("*.onnx")} == {path.stem for path in FOUND}


def test_a_finding_is_what_was_saved(tmp_path: Path) -> None:
    finding = Finding.load(FOUND[0])
    again = Finding.load(finding.save(tmp_path))
    assert again.plan == finding.plan
    assert again.failure == finding.failure
    assert again.sample.model == finding.sample.model


def test_replay_says_what_happens_now(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--replay", str(FOUND[0])]) == 0
    assert "now: nothing fails" in capsys.readouterr().out
