"""Running a model in onnxruntime; nothing else of the package touches the runtime."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from snn_optimizer.errors import ExecutionError, ModelLoadError
from snn_optimizer.execution.source import ModelSource, read_model, serialize

__all__ = ["Dimension", "Port", "Session"]

Array = npt.NDArray[Any]
Dimension = int | str | None

_FATAL = 4  # onnxruntime's severity above which nothing is printed; errors reach us as exceptions
_LONGEST_MESSAGE = 400

_TYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
} | {f"tensor({name})": np.dtype(name) for kind in ("int", "uint") for name in (f"{kind}{8 * n}" for n in (1, 2, 4, 8))}

onnxruntime.set_default_logger_severity(_FATAL)  # what belongs to no session, as an allocation that fails

_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_SOURCE_PLACE = re.compile(r"/\S+\.(?:cc|h):\d+ [^()]*\([^()]*\)(?: const)?(?: \[with [^\]]*\])? ?")


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a model.

    Attributes
    ----------
    name : str
    dtype : numpy.dtype
    shape : tuple of int, str or None, or None
        Fixed sizes, symbols, unknown sizes; None when not even the rank is known.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[Dimension, ...] | None

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.dtype}[...]"
        return f"{self.dtype}[{', '.join('?' if size is None else str(size) for size in self.shape)}]"


class Session:
    """A model loaded into onnxruntime on the CPU.

    Parameters
    ----------
    model : ModelProto, bytes or path
        Models above 2 GiB only as a path.
    optimize : bool
        Whether the runtime may rewrite the graph. Off for every comparison: a
        rewrite of the runtime would be judged with the model.
    threads : int
        Threads within one operator.
    external_data : path, optional
        Folder of external weights of a model given in memory.

    Attributes
    ----------
    inputs, outputs : tuple of Port

    Raises
    ------
    ModelLoadError
        If the file is missing.
    ExecutionError
        If the runtime does not accept the model; one line, without the runtime's own source places.
    """

    def __init__(
        self,
        model: ModelSource,
        *,
        optimize: bool = False,
        threads: int = 1,
        external_data: str | os.PathLike[str] | None = None,
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _FATAL
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
        # buffers are reused by declared symbolic sizes; exporters declare wrong ones, which only the optimizer repairs
        options.enable_mem_reuse = optimize
        if external_data is not None:
            folder = str(Path(external_data).resolve())
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
        try:
            self._session = onnxruntime.InferenceSession(_loadable(model), options, providers=["CPUExecutionProvider"])
        except (ExecutionError, ModelLoadError):
            raise
        except Exception as error:  # noqa: BLE001 - the runtime's exceptions share no base class
            raise ExecutionError(f"onnxruntime cannot load the model: {_one_line(error)}") from None
        self._silent = onnxruntime.RunOptions()
        self._silent.log_severity_level = _FATAL
        arguments = (self._session.get_inputs(), self._session.get_outputs())
        try:
            ranked = _ranked(model) if any(not argument.shape for ports in arguments for argument in ports) else set()
            self.inputs, self.outputs = (tuple(_port(argument, ranked) for argument in ports) for ports in arguments)
        except UnicodeDecodeError as error:
            raise ExecutionError(f"a name of the model's interface is not UTF-8 text: {error.object!r:.80}") from error
        self._output_names = frozenset(port.name for port in self.outputs)

    def run(self, feeds: Mapping[str, npt.ArrayLike], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run the model once.

        Parameters
        ----------
        feeds : mapping from input name to array
        outputs : sequence of str, optional
            Names to return; all outputs by default.

        Returns
        -------
        dict from output name to array, in the order asked for

        Raises
        ------
        ExecutionError
            If an input is missing or unknown, or the runtime fails; one line.
        """
        names = [port.name for port in self.outputs] if outputs is None else list(outputs)
        _refuse("no such output", (name for name in names if name not in self._output_names))
        if not names:
            return {}  # the runtime takes no names for all names
        return dict(zip(names, self.prepare(feeds, names)(), strict=True))

    def prepare(self, feeds: Mapping[str, npt.ArrayLike], outputs: Sequence[str] | None = None) -> Callable[[], Any]:
        """Return a call that runs the model on these arrays and does nothing else, to be timed.

        Raises
        ------
        ExecutionError
            If an input is missing or unknown; from the call, if the runtime fails.
        """
        known = {port.name for port in self.inputs}
        _refuse("input not fed", (name for name in known if name not in feeds))
        _refuse("no such input", (name for name in feeds if name not in known))
        arrays = {name: np.asarray(value, order="C") for name, value in feeds.items()}

        def call() -> Any:
            try:
                return self._session.run(outputs, arrays, self._silent)
            except Exception as error:  # noqa: BLE001 - the runtime's exceptions share no base class
                raise ExecutionError(f"onnxruntime cannot run the model: {_one_line(error)}") from None

        return call


def _loadable(model: ModelSource) -> str | bytes:
    if isinstance(model, onnx.ModelProto):
        return serialize(model)
    if isinstance(model, bytes):
        return model
    if not Path(model).is_file():
        raise ModelLoadError(f"{os.fspath(model)!r}: no such file")
    return os.fspath(model)


def _ranked(model: ModelSource) -> set[str]:
    """Names of inputs and outputs that declare a shape; the runtime reports unknown ranks as scalars."""
    graph = read_model(model)[0].graph
    return {info.name for info in (*graph.input, *graph.output) if info.type.tensor_type.HasField("shape")}


def _port(argument: Any, ranked: set[str]) -> Port:
    if argument.type not in _TYPES:
        raise ExecutionError(f"'{argument.name}' has type {argument.type}, which cannot be exchanged as an array")
    known = bool(argument.shape) or argument.name in ranked
    return Port(argument.name, np.dtype(_TYPES[argument.type]), tuple(argument.shape) if known else None)


def _refuse(reason: str, names: Iterable[str]) -> None:
    listed = ", ".join(f"'{name}'" for name in sorted(names))
    if listed:
        raise ExecutionError(f"{reason}: {listed}")


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    text = _SOURCE_PLACE.sub("", _PREFIX.sub("", text))
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]} ..."
