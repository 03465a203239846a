"""Every file the command line writes appears whole or not at all, whatever happens meanwhile."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from snn_optimizer.execution import Session
from snn_optimizer.ir import Module

ARGUMENTS = {
    "optimize": "optimize {model} -o {out}/net.onnx -O1 --report {out}/r.json --remarks-output {out}/r.jsonl -q",
    "external": "optimize {model} -o {out}/net.onnx -O1 --external-data -q",
    "profile": "profile {model} --data {data} -o {out}/p.npz -q",
    "verify": "verify {model} {other} --counterexample {out}/c.npz -q",
    "calibrate": "bench --calibrate --sizes 16,32 --rounds 2 -o {out}/costs.json -q",
    "sweep": "sweep {model} --calib {data} -o {out} --jobs 1 --budgets 0.05 -p @O1 --keep-models -q",
}
WRITTEN = {
    "optimize": {"net.onnx", "r.json", "r.jsonl"},
    "external": {"net.onnx", "net.onnx.data"},
    "profile": {"p.npz"},
    "verify": {"c.npz"},
    "calibrate": {"costs.json"},
    "sweep": {"sweep.json", "sweep.csv", "pareto.svg", "runs", "models"},
}

# says so and waits when everything is staged and nothing is in place
WAITING = """
    import sys, time
    from snn_optimizer.cli.main import main
    from snn_optimizer.ir import atomic

    exit_ = atomic.AtomicFiles.__exit__

    def wait(self, *error):
        if error[0] is None:
            try:
                print("staged", flush=True)
                time.sleep(60)
            except BaseException:
                exit_(self, *sys.exc_info())
                raise
        return exit_(self, *error)

    atomic.AtomicFiles.__exit__ = wait
    main(sys.argv[1:])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    out = tmp_path / "out"
    out.mkdir()
    return out


def words(command: str, models: Path, out: Path) -> list[str]:
    places = {
        "model": models / "digits_mlp.onnx",
        "other": models / "digits_cuba.onnx" if command != "verify" else other_weights(models, out.parent),
        "data": models / "digits_mlp.calib.npz",
        "out": out,
    }
    return [word.format(**places) for word in ARGUMENTS[command].split()]


def other_weights(models: Path, folder: Path) -> Path:
    """Return a model that computes something else than the first."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(models / "digits_mlp.onnx")
    tensor = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, folder / "other.onnx")
    return folder / "other.onnx"


def start(arguments: list[str], *, waits: bool = False, largest: int | None = None) -> subprocess.Popen[str]:
    program = ["-c", textwrap.dedent(WAITING)] if waits else ["-m", "snn_optimizer"]

    def limit() -> None:
        if largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    return subprocess.Popen(
        [sys.executable, *program, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=limit,  # noqa: PLW1509
    )  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fill(folder: Path, command: str) -> dict[str, bytes]:
    """Put an old file in the place of each result."""
    for name in WRITTEN[command]:
        if "." in name:
            (folder / name).write_text(f"old {name}")
    return contents(folder)


@pytest.mark.slow
@pytest.mark.parametrize("command", ARGUMENTS)
def test_what_is_written_is_whole(command: str, models: Path, folder: Path) -> None:
    fill(folder, command)
    process = start(words(command, models, folder))
    _, error = process.communicate(timeout=120)
    assert process.returncode == (1 if command == "verify" else 0), error
    assert {path.name for path in folder.iterdir()} == WRITTEN[command]
    assert not any(data.startswith(b"old ") for data in contents(folder).values())


@pytest.mark.slow
@pytest.mark.parametrize("command", [name for name in ARGUMENTS if name != "sweep"])
def test_a_full_disk_leaves_the_old_files(command: str, models: Path, folder: Path) -> None:
    before = fill(folder, command)
    process = start(words(command, models, folder), largest=48)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 2
    assert error.count("\n") == 1
    assert "cannot write" in error
    assert contents(folder) == before


@pytest.mark.slow
def test_a_sweep_on_a_full_disk(models: Path, folder: Path) -> None:
    process = start(words("sweep", models, folder), largest=48)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "cannot write" in error.splitlines()[-1]
    assert "Traceback" not in error
    assert contents(folder) == {}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
@pytest.mark.parametrize("command", ["optimize", "external", "profile"])
def test_a_signal_leaves_the_old_files(command: str, number: signal.Signals, models: Path, folder: Path) -> None:
    before = fill(folder, command)
    process = start(words(command, models, folder), waits=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "staged\n"
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    after = contents(folder)
    if number == signal.SIGKILL:  # nobody can clean up after it
        assert process.returncode == -number
        after = {name: data for name, data in after.items() if not name.endswith(".tmp")}
    else:
        assert (process.returncode, error) == (128 + number, "snnopt: stopped; nothing was written\n")
    assert after == before


@pytest.mark.slow
def test_signals_at_any_moment(models: Path, tmp_path: Path) -> None:
    """The old file or the new one, never a part, never a temporary one."""
    model = models / "digits_mlp.onnx"
    whole = tmp_path / "whole.onnx"
    arguments = ["optimize", str(model), "-O1", "--no-verify", "-q", "-o"]
    started = time.monotonic()
    process = start([*arguments, str(whole)])
    assert process.communicate(timeout=60)[1] == ""
    duration = time.monotonic() - started
    generator = np.random.default_rng(3)
    outcomes = set()
    for number in range(8):
        out = tmp_path / f"out{number}"
        out.mkdir()
        (out / "net.onnx").write_bytes(b"old")
        process = start([*arguments, str(out / "net.onnx")])
        time.sleep(duration * generator.uniform(0.6, 1.1))
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        found = contents(out)
        assert set(found) == {"net.onnx"}
        assert found["net.onnx"] in (b"old", whole.read_bytes())
        outcomes.add(process.returncode)
    assert outcomes <= {0, 128 + signal.SIGTERM, -signal.SIGTERM}


# ----------------------------------------------------------------- in process


@pytest.mark.parametrize("external", [False, True])
def test_over_the_input(external: bool, snnopt, models: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    Module.load(models / "digits_pruned.onnx").save(path, external=external)
    before = path.stat().st_size
    code, out, error = snnopt("optimize", path, "-o", path, "-O2")
    assert (code, error) == (0, "")
    assert "EQUIVALENT" in out
    assert path.stat().st_size < before or external
    Session(path)
    assert {each.name for each in tmp_path.iterdir()} == ({path.name, "net.onnx.data"} if external else {path.name})


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["-o", "{t}/none/x.onnx"], "there is no folder"),
        (["-o", "{t}"], "not a regular file"),
        (["-o", "/dev/full"], "not a regular file"),
        (["-o", "{t}/x.onnx", "--report", "{t}/none/r.json"], "there is no folder"),
        (["-o", "{t}/x.onnx", "--remarks-output", "{t}/x.onnx"], "two results"),
        (["-o", "{t}/" + "n" * 300], "File name too long"),
    ],
)
def test_targets_are_looked_at_before_work_is_done(
    options: list[str], part: str, snnopt, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the job ran")

    monkeypatch.setattr("snn_optimizer.api.run_job", never)
    words = [each.format(t=tmp_path) for each in options]
    code, _, error = snnopt("optimize", models / "digits_mlp.onnx", *words)
    assert (code, error.count("\n")) == (2, 1)
    assert part in error
    assert list(tmp_path.iterdir()) == []


def test_a_report_that_cannot_be_written_takes_the_model_with_it(
    snnopt, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Path, target: Path) -> Path:
        if target.suffix == ".json":
            raise OSError(5, "Input/output error")
        return self.rename(target)

    monkeypatch.setattr(Path, "replace", fail)
    (tmp_path / "net.onnx").write_bytes(b"old")
    code, _, error = snnopt(
        "optimize", models / "digits_mlp.onnx", "-o", tmp_path / "net.onnx", "-O1", "--report", tmp_path / "r.json"
    )
    assert code == 2
    assert "r.json': cannot write: Input/output error" in error
    assert contents(tmp_path) == {"net.onnx": b"old"}


@pytest.mark.skipif(os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root may write everywhere")
def test_a_folder_without_permission(models: Path, folder: Path) -> None:
    folder.chmod(0o555)
    arguments = ["optimize", str(models / "digits_mlp.onnx"), "-o", str(folder / "net.onnx"), "-O1", "-q"]
    command = [sys.executable, "-m", "snn_optimizer", *arguments]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "is read-only" in done.stderr
    assert contents(folder) == {}


def test_a_full_standard_output(models: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "snn_optimizer", "info", str(models / "digits_mlp.onnx")],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "snnopt: the output: No space left on device\n")
