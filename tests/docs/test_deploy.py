"""Programs of the page about deployment, in the languages that are not ours."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from snn_optimizer import SNNGraph
from snn_optimizer.api import Job, run_job
from snn_optimizer.execution import Session
from tests.docs.pages import ROOT, block_named

PAGE = ROOT / "docs" / "guide" / "deploy.md"
STUB = ROOT / "tests" / "support" / "onnxruntime_stub"
EXPORT = ROOT / "models" / "exports" / "digits_unrolled.onnx"


@pytest.fixture
def frames() -> np.ndarray:
    return (np.random.default_rng(0).random((16, 1, 64)) < 0.4).astype(np.float32)


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    graph: SNNGraph = run_job(EXPORT, Job(emit="step"))[0]
    graph.save(tmp_path / "stream.onnx")
    return tmp_path / "stream.onnx"


def expected(frames: np.ndarray) -> np.ndarray:
    spikes = Session(EXPORT).run({"x": frames})["spikes"][:, 0]
    assert spikes.any()
    return spikes


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ here")
def test_the_cpp_program_agrees_with_the_declarations_it_uses(tmp_path: Path) -> None:
    (tmp_path / "stream.cpp").write_text(block_named(PAGE, "stream.cpp").text)
    command = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I", STUB, "stream.cpp"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ here")
@pytest.mark.skipif("ONNXRUNTIME" not in os.environ, reason="ONNXRUNTIME names no unpacked release of onnxruntime")
def test_the_cpp_program_computes_the_spikes(stream: Path, frames: np.ndarray) -> None:
    home, folder = Path(os.environ["ONNXRUNTIME"]), stream.parent
    (folder / "stream.cpp").write_text(block_named(PAGE, "stream.cpp").text)
    library = home / "lib"
    command = ["g++", "-std=c++17", "stream.cpp", f"-I{home / 'include'}", f"-L{library}", "-lonnxruntime"]
    done = subprocess.run(
        [*command, f"-Wl,-rpath,{library}", "-o", "stream"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    given = "\n".join(" ".join(f"{value:g}" for value in frame.ravel()) for frame in frames)
    out = subprocess.run([folder / "stream"], cwd=folder, input=given, capture_output=True, text=True, check=True)
    np.testing.assert_array_equal(np.loadtxt(out.stdout.splitlines()), expected(frames))


CALL = """
import { readFileSync } from "node:fs";
import { Stream } from "./stream.mjs";

const stream = await Stream.open(new Uint8Array(readFileSync("stream.onnx")));
const frames = JSON.parse(readFileSync("frames.json"));
const run = async () => {
  const rows = [];
  for (const frame of frames) rows.push(Array.from((await stream.step(Float32Array.from(frame))).spikes.data));
  return rows;
};
const first = await run();
stream.reset();
console.log(JSON.stringify([first, await run()]));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node here")
@pytest.mark.skipif(
    not (Path(os.environ.get("SNNOPT_NODE_MODULES", "/nowhere")) / "onnxruntime-web").is_dir(),
    reason="SNNOPT_NODE_MODULES names no folder with onnxruntime-web",
)
def test_the_javascript_computes_the_spikes(stream: Path, frames: np.ndarray) -> None:
    import json

    folder = stream.parent
    (folder / "node_modules").symlink_to(os.environ["SNNOPT_NODE_MODULES"])
    (folder / "stream.mjs").write_text(block_named(PAGE, "stream.mjs").text)
    (folder / "call.mjs").write_text(CALL)
    (folder / "frames.json").write_text(json.dumps(frames.reshape(len(frames), -1).tolist()))
    done = subprocess.run(["node", "call.mjs"], cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    for spikes in json.loads(done.stdout.splitlines()[-1]):
        np.testing.assert_array_equal(np.array(spikes, np.float32), expected(frames))
