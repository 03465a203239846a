"""Whose fault it is when something fails: a model that breaks the rules of ONNX, or this package.

Checking a whole model with ONNX's own checker, shape inference and onnxruntime takes longer than
most passes, so it is done only after something went wrong.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx
from google.protobuf.message import Message

from snn_optimizer.errors import ExecutionError, SnnOptimizerError
from snn_optimizer.execution.ort import Session
from snn_optimizer.execution.source import read_model
from snn_optimizer.ir import SNNGraph

__all__ = ["Fault", "explain", "find_fault"]

_LONGEST: Final = 300
_INFERRED_UP_TO: Final = 1 << 30  # bytes: shape inference copies the message

# the ways onnxruntime and onnx name a node, and the reason that follows
_PLACES: Final = (
    re.compile(r'In Node, \("(?P<name>[^"]*)", (?P<op>\w+),.*?, Error (?P<reason>.*)', re.DOTALL),
    re.compile(r"Node ?\((?P<name>[^()]*)\) Op \((?P<op>\w+)\) (?P<reason>.*)", re.DOTALL),
    re.compile(r"\(op_type:(?P<op>\w+), node name: (?P<name>[^()]*)\): (?P<reason>.*)", re.DOTALL),
    re.compile(r"(?P<reason>.*?)\s*==> Context: Bad node spec .* Name: (?P<name>.*?) OpType: (?P<op>\w+)", re.DOTALL),
)
_NOISE: Final = re.compile(r"\[\w+Error\]\s*|Load model from \S+ failed:\s*|==> Context:.*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a model.

    Attributes
    ----------
    reason : str
        One line; names the node where one can.
    invalid : bool
        Whether the model breaks the rules of ONNX; otherwise the runtime just does not take it.
    """

    reason: str
    invalid: bool

    def __str__(self) -> str:
        return ("not a valid model: " if self.invalid else "onnxruntime does not take it: ") + self.reason


def explain(message: str) -> str:
    """Return what a checker or the runtime said as one line that begins with the node it names."""
    for place in _PLACES:
        if (found := place.search(message)) is not None:
            reason = _one_line(found["reason"])
            name = _one_line(found["name"])
            node = f"node '{name}' ({found['op']})" if name else f"a node {found['op']} without a name"
            return f"{node}: {reason}"
    return _one_line(message)


def _one_line(text: str) -> str:
    first = text.partition("\n(op_type:")[0]  # what follows from it
    line = " ".join(_NOISE.sub("", first).split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."


def find_fault(path: str | os.PathLike[str]) -> Fault | None:
    """Return what is wrong with the model in a file; None when nothing is.

    Asked in turn: can it be read here, is its text UTF-8, what does the checker of ONNX say, does
    onnxruntime load it, and do its shapes and types fit together.
    """
    file = Path(path)
    try:
        SNNGraph.from_onnx(file)
        model, _ = read_model(file)
        if (place := _broken_text(model)) is not None:
            return Fault(f"{place} is not UTF-8 text", invalid=True)
    except SnnOptimizerError as error:
        return Fault(str(error).removeprefix(f"'{file}': "), invalid=True)
    if (said := _refusal(lambda: onnx.checker.check_model(file))) is not None:
        return Fault(explain(said), invalid=True)
    try:
        Session(file)
    except ExecutionError as error:
        refused = str(error)
    except SnnOptimizerError as error:
        return Fault(str(error), invalid=True)
    else:
        refused = ""
    if file.stat().st_size <= _INFERRED_UP_TO:
        said = _refusal(lambda: onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True))
        if said is not None:
            return Fault(explain(said), invalid=True)
    return Fault(explain(refused), invalid=False) if refused else None


def _refusal(check: Callable[[], object]) -> str | None:
    """Return what a check of the ONNX package complains about; its exceptions share no base class."""
    try:
        check()
    except Exception as error:  # noqa: BLE001 - see above
        return str(error) or type(error).__name__
    return None


def _broken_text(model: Message) -> str | None:
    """Return where a message holds text that is not UTF-8; None when nowhere."""
    pending: list[tuple[Message, str]] = [(model, "model")]
    while pending:
        message, place = pending.pop()
        try:
            fields = message.ListFields()
        except UnicodeDecodeError:
            return place
        for field, held in fields:
            single = isinstance(held, (Message, str, bytes)) or not hasattr(held, "__len__")
            if field.message_type is not None:
                pending += ((part, f"{place}.{field.name}") for part in ([held] if single else held))
            elif field.type == field.TYPE_STRING and not all(isinstance(t, str) for t in ([held] if single else held)):
                return f"{place}.{field.name}"
    return None
