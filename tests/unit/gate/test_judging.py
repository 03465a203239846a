"""Each status is reached by what it stands for, and by nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from snn_optimizer.errors import InputError
from snn_optimizer.gate import Status, judging, read_settings, run_gate, select
from snn_optimizer.gate.patterns import matches
from snn_optimizer.measures import Measured, measure_model
from tests.support.models import mlp, spike_trains


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "net.onnx")
    return tmp_path


def save(path: Path, *sizes: int, steps: int | str = "T") -> None:
    path.parent.mkdir(exist_ok=True)
    onnx.save_model(mlp(sizes or (8, 16, 4), steps=steps), path)


def judged(folder: Path, limits: str, baseline: str = "", **options):
    (folder / "snnopt.toml").write_text(f"[gate]\nmodels = ['net.onnx']\n{limits}")
    settings = read_settings(folder / "snnopt.toml")
    return run_gate(settings, select(settings, []), baseline=baseline, **options)


def only(result):
    ((_, check),) = result.each()
    return check


def test_a_file_or_a_folder_as_baseline(folder: Path) -> None:
    save(folder / "old.onnx", 8, 20, 4)
    assert only(judged(folder, 'neurons = "="', "old.onnx")).status is Status.FAIL
    save(folder / "released" / "net.onnx", 8, 16, 4)
    result = judged(folder, 'baseline = "released"\nneurons = "="')
    assert only(result).status is Status.PASS
    assert result.models[0].baseline == "released/net.onnx"
    (folder / "released" / "net.onnx").unlink()
    check = only(judged(folder, 'neurons = "="', "released"))
    assert (check.status, check.message) == (Status.NEW, "net.onnx has no baseline in that folder")


def test_less_than_recorded_is_to_be_recorded(folder: Path) -> None:
    judged(folder, "neurons = '='", update=True)
    save(folder / "net.onnx", 8, 10, 4)
    check = only(judged(folder, "neurons = '='"))
    assert check.status is Status.FAIL
    assert check.message == "neurons: 14, less than the recorded 20: record it with 'snnopt gate --update'"


def test_what_cannot_be_measured_cannot_be_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_synapses(*arguments, **options) -> Measured:
        found = measure_model(*arguments, **options)
        del found.values["synapses"]
        return found

    monkeypatch.setattr(judging, "measure_model", without_synapses)
    result = judged(folder, "synapses = 10\nneurons = 100")
    assert [check.status for _, check in result.each()] == [Status.PASS, Status.UNKNOWN]
    assert result.exit_code == 4
    assert judged(folder, "synapses = 10\nneurons = 1").exit_code == 1  # what is wrong outweighs what is unknown
    assert judged(folder, "[gate.warn]\nneurons = 1").exit_code == 0


def test_time_of_another_interface_cannot_be_told(folder: Path) -> None:
    save(folder / "old.onnx", 9, 16, 4)
    check = only(judged(folder, "run-time = 2.0", "old.onnx"))
    assert check.status is Status.UNKNOWN
    assert "cannot be compared" in check.message


def test_samples_that_do_not_fit_the_baseline(folder: Path) -> None:
    """Of a baseline with another interface everything but the costs on samples is compared."""
    np.savez(folder / "net.npz", x=spike_trains(5, 3, 8))
    save(folder / "old.onnx", 9, 16, 4)
    result = judged(folder, 'data = "{stem}.npz"\nneurons = "+0"\nsynaptic-operations = "+5%"', "old.onnx")
    assert [(check.measure, check.status) for _, check in result.each()] == [
        ("neurons", Status.PASS), ("synaptic-operations", Status.UNKNOWN),
    ]  # fmt: skip
    assert result.models[0].values["synaptic-operations"] > 0
    with pytest.raises(InputError, match=r"gone\.npz"):
        judged(folder, 'data = "gone.npz"\nsynaptic-operations = 100')


def test_what_cannot_be_verified_could_not_be_smaller_for_sure(folder: Path) -> None:
    onnx.save_model(mlp(v_threshold=1e6, weights=[np.zeros((16, 8)), np.zeros((4, 16))]), folder / "net.onnx")
    check = only(judged(folder, 'could-be-smaller = "5%"'))
    assert check.status is Status.UNKNOWN
    assert "cannot tell" in check.message
    save(folder / "net.onnx")
    assert only(judged(folder, 'could-be-smaller = "90%"')).status is Status.PASS


def test_what_could_be_smaller_may_only_warn(folder: Path, models: Path) -> None:
    (folder / "net.onnx").write_bytes((models / "digits_pruned.onnx").read_bytes())
    result = judged(folder, '[gate.warn]\ncould-be-smaller = "5%"')
    assert (only(result).status, result.exit_code) == (Status.WARN, 0)
    assert only(result).value == pytest.approx(0.378, abs=0.001)


def test_operations_need_samples(folder: Path) -> None:
    with pytest.raises(InputError, match="energy needs samples"):
        judged(folder, "energy = '1 nJ'")


def test_an_excluded_model_is_not_checked(folder: Path) -> None:
    save(folder / "other.onnx")
    (folder / "snnopt.toml").write_text('[gate]\nmodels = ["*.onnx"]\nexclude = ["oth*"]\nneurons = 1\n')
    settings = read_settings(folder / "snnopt.toml")
    assert [one.name for one in select(settings, [])] == ["net.onnx"]
    with pytest.raises(InputError, match="is excluded"):
        select(settings, [Path("other.onnx")])
    assert [one.shown for one in select(settings, [Path("*.onnx")])] == ["net.onnx"]


def test_a_lock_file_forgets_what_is_gone(folder: Path) -> None:
    save(folder / "net.onnx")
    save(folder / "other.onnx")
    (folder / "snnopt.toml").write_text("[gate]\nneurons = '='\n")
    settings = read_settings(folder / "snnopt.toml")
    lock = folder / "snnopt.lock.json"
    run_gate(settings, select(settings, [Path("net.onnx"), Path("other.onnx")]), update=True)
    run_gate(settings, select(settings, [Path("net.onnx")]), update=True)
    assert "other.onnx" in lock.read_text()
    (folder / "other.onnx").unlink()
    run_gate(settings, select(settings, [Path("net.onnx")]), update=True)
    assert "other.onnx" not in lock.read_text()
    for text in ("{", "[]", '{"schema": 2, "models": {}}', '{"schema": 1, "models": {"net.onnx": 3}}'):
        lock.write_text(text)
        with pytest.raises(InputError, match=r"snnopt\.lock\.json"):
            run_gate(settings, select(settings, [Path("net.onnx")]))


@pytest.mark.parametrize(
    ("path", "pattern", "expected"),
    [
        ("models/a.onnx", "*.onnx", True),
        ("models/a.onnx", "models/*.onnx", True),
        ("models/deep/a.onnx", "models/*.onnx", False),
        ("models/deep/a.onnx", "models/**/*.onnx", True),
        ("models/a.onnx", "models/**/*.onnx", True),
        ("models/a.onnx", "**/a.onnx", True),
        ("models/deep/a.onnx", "models/**", True),
        ("a1.onnx", "a[0-9].onnx", True),
        ("ab.onnx", "a[!0-9].onnx", True),
        ("a1.onnx", "a[!0-9].onnx", False),
        ("a[.onnx", "a[.onnx", True),
        ("axonnx", "a.onnx", False),
        ("ab.onnx", "?.onnx", False),
    ],
)
def test_globs(path: str, pattern: str, expected: bool) -> None:
    assert matches(path, pattern) is expected
