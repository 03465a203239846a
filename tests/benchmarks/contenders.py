"""The optimizers that are compared, each as a whole command in a fresh process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import onnx

__all__ = ["CONTENDERS", "NAMES", "Contender", "Outcome", "chosen", "count_nodes", "first_line", "subgraphs"]

LONGEST_MESSAGE = 160
PROBE_LIMIT = 120.0
_NOISE = re.compile(r"\S*\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from \S+ failed: ?|/\S+\.(?:cc|h):\d+ ")

_ONNXSCRIPT = """
import sys, onnx, onnxscript.optimizer
onnx.save(onnxscript.optimizer.optimize(onnx.load(sys.argv[1])), sys.argv[2])
"""
_ONNXRUNTIME = """
import sys, onnxruntime
options = onnxruntime.SessionOptions()
options.log_severity_level = 3
options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
options.optimized_model_filepath = sys.argv[2]
onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one command did.

    Attributes
    ----------
    seconds : float
        Wall time of the process.
    error : str
        First line of what went wrong; empty when the file was written.
    expired : bool
        Whether the command was stopped at its time limit.
    """

    seconds: float
    error: str = ""
    expired: bool = False


@dataclass(frozen=True, slots=True)
class Contender:
    """An optimizer with its own default options.

    Attributes
    ----------
    name : str
    package : str
        Distribution whose version is shown.
    module : str
        What must be importable.
    arguments : tuple of str
        Arguments of the interpreter; ``{input}`` and ``{output}`` stand for the files.
    """

    name: str
    package: str
    module: str
    arguments: tuple[str, ...]

    def absent(self) -> str:
        """Return why the tool cannot run here, or nothing; a fresh process imports it, so its files are cached too."""
        error = _execute([sys.executable, "-c", f"import {self.module}"], PROBE_LIMIT).error
        return error.removeprefix("exit 1: ")

    def run(self, model: Path, output: Path, limit: float) -> Outcome:
        """Run the command on `model` for at most `limit` seconds."""
        command = [text.format(input=model, output=output) for text in self.arguments]
        outcome = _execute([sys.executable, *command], limit)
        if not outcome.error and not output.exists():
            return Outcome(outcome.seconds, "wrote nothing")
        return outcome


def _inline(code: str) -> tuple[str, ...]:
    return ("-c", code.strip(), "{input}", "{output}")


def _own(level: str) -> Contender:
    arguments = ("-m", "snn_optimizer", "optimize", "{input}", "-o", "{output}", f"-{level}", "-q")
    return Contender(f"snnopt-{level}", "snn-optimizer", "snn_optimizer", arguments)


CONTENDERS = (
    _own("O1"),
    _own("O2"),
    Contender("onnxslim", "onnxslim", "onnxslim", ("-m", "onnxslim", "{input}", "{output}")),
    Contender("onnxsim", "onnxsim", "onnxsim", ("-m", "onnxsim", "{input}", "{output}")),
    Contender("onnxoptimizer", "onnxoptimizer", "onnxoptimizer", ("-m", "onnxoptimizer", "{input}", "{output}")),
    Contender("onnxscript", "onnxscript", "onnxscript.optimizer", _inline(_ONNXSCRIPT)),
    Contender("onnxruntime", "onnxruntime", "onnxruntime", _inline(_ONNXRUNTIME)),
)
NAMES = tuple(contender.name for contender in CONTENDERS)


def chosen(names: str | None) -> list[Contender]:
    """Return the contenders named in a list with commas; all without one.

    Raises
    ------
    ValueError
        If a name is unknown.
    """
    if names is None:
        return list(CONTENDERS)
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    known = {contender.name: contender for contender in CONTENDERS}
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise ValueError(f"unknown tool {', '.join(unknown) or '(none given)'}; there are {', '.join(NAMES)}")
    return [known[name] for name in wanted]


def _execute(command: list[str], limit: float) -> Outcome:
    environment = os.environ | {"COLUMNS": "500", "NO_COLOR": "1", "PYTHONWARNINGS": "ignore"}
    begin = time.perf_counter()
    # its own session: whatever the command starts is stopped with it
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        printed, complained = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return Outcome(time.perf_counter() - begin, f"> {limit:g} s", expired=True)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    seconds = time.perf_counter() - begin
    if process.returncode == 0:
        return Outcome(seconds)
    if process.returncode < 0:
        return Outcome(seconds, f"killed by {signal.Signals(-process.returncode).name}")
    message = first_line(complained) or first_line(printed) or "no message"
    return Outcome(seconds, f"exit {process.returncode}: {message}")


def first_line(text: str) -> str:
    """Return the first line of the error in what a command printed.

    Of a Python traceback that is the first line of the exception's message; of anything else the first line that
    speaks of an error, or simply the first.
    """
    lines = text.splitlines()
    traces = [number for number, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    if traces:
        raised = [line for line in lines[traces[-1] + 1 :] if line.strip() and not line.startswith(" ")]
        lines = raised or lines
    spoken = [line.strip() for line in lines if line.strip()]
    telling = [line for line in spoken if "error" in line.lower()]
    return _NOISE.sub("", next(iter([*telling, *spoken]), ""))[:LONGEST_MESSAGE]


def count_nodes(model: onnx.ModelProto) -> tuple[int, int]:
    """Return the nodes at the top level, and all of them with those of subgraphs and functions."""
    total = _nodes(model.graph.node) + sum(_nodes(function.node) for function in model.functions)
    return len(model.graph.node), total


def _nodes(nodes: object) -> int:
    return sum(1 + sum(_nodes(graph.node) for graph in subgraphs(node)) for node in nodes)


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Return the graphs a node holds."""
    graphs = []
    for attribute in node.attribute:
        if attribute.HasField("g"):
            graphs.append(attribute.g)
        graphs.extend(attribute.graphs)
    return graphs
