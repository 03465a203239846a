"""Running a model in the reference implementation of ONNX: every operator in NumPy, no kernel of a runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.reference

from snn_optimizer.errors import ExecutionError
from snn_optimizer.execution.source import ModelSource, read_model

__all__ = ["ReferenceSession"]

Array = npt.NDArray[Any]

_LONGEST_MESSAGE = 200


class ReferenceSession:
    """A model in ``onnx.reference``, model-local functions as their bodies say.

    Parameters
    ----------
    model : ModelProto, bytes or path

    Raises
    ------
    ExecutionError
        If the reference does not know an operator of the model.
    """

    def __init__(self, model: ModelSource) -> None:
        proto, folder = read_model(model)
        if folder is not None:
            proto = _with_weights(proto, folder)
        try:
            self._evaluator = onnx.reference.ReferenceEvaluator(proto)
        except Exception as error:  # noqa: BLE001 - its exceptions share no base class
            raise ExecutionError(f"the reference cannot load the model: {_one_line(error)}") from None
        self._names = [str(info.name) for info in proto.graph.output]

    def run(self, feeds: Mapping[str, npt.ArrayLike]) -> dict[str, Array]:
        """Run the model once.

        Raises
        ------
        ExecutionError
            If an operator cannot run; one line.
        """
        arrays = {name: np.asarray(value, order="C") for name, value in feeds.items()}
        try:
            with np.errstate(all="ignore"):
                values = self._evaluator.run(None, arrays)
        except Exception as error:  # noqa: BLE001 - its exceptions share no base class
            raise ExecutionError(f"the reference cannot run the model: {_one_line(error)}") from None
        return {name: np.asarray(value) for name, value in zip(self._names, values, strict=True)}


def _with_weights(proto: onnx.ModelProto, folder: Any) -> onnx.ModelProto:
    if not any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in proto.graph.initializer):
        return proto
    try:
        onnx.external_data_helper.load_external_data_for_model(proto, str(folder))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ExecutionError(f"the reference cannot read the external weights: {_one_line(error)}") from None
    return proto


def _one_line(error: Exception) -> str:
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]} ..."
