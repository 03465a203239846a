"""The exceptions of this package, all of them.

    SnnOptimizerError
    ├── InputError                 the caller can fix it               exit 2
    │   ├── ModelLoadError         the file cannot be read as a model
    │   ├── UnsupportedModelError  names the feature and the node
    │   ├── DataError              calibration or test data does not fit the model
    │   ├── OutputError            the result cannot be written
    │   ├── PipelineSpecError      has .text, .start, .end
    │   ├── UnknownPassError       has .name, .suggestions
    │   └── PassOptionError        an option a pass does not have, or a wrong value
    ├── PassError                  a pass raised or broke its contract exit 3
    │   └── ConvergenceError       a fixpoint group hit its bound
    ├── VerificationError          the result is wrong                 exit 1
    │   ├── IRVerificationError    names the pass and the invariant
    │   └── BudgetError            the caller's budget cannot be met
    └── ExecutionError             a backend could not run the model   exit 4

"Cannot tell" is not an exception: analyses return unknown, rules return a
``Refusal``, verification returns ``INCONCLUSIVE``.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "BudgetError",
    "ConvergenceError",
    "DataError",
    "ExecutionError",
    "IRVerificationError",
    "InputError",
    "ModelLoadError",
    "OutputError",
    "PassError",
    "PassOptionError",
    "PipelineSpecError",
    "SnnOptimizerError",
    "UnknownPassError",
    "UnsupportedModelError",
    "VerificationError",
    "did_you_mean",
]


def did_you_mean(written: object, known: Iterable[str]) -> str:
    """Return a clause that names the known name nearest to what was written; empty when none is near."""
    by_folded = {name.casefold(): name for name in known}
    near = get_close_matches(str(written).casefold(), by_folded, n=1)
    return f"; did you mean '{by_folded[near[0]]}'?" if near else ""


class SnnOptimizerError(Exception):
    """Root of everything this package raises on purpose."""

    exit_code: int = 3


class InputError(SnnOptimizerError, ValueError):
    """The caller's input is at fault; the message says what to change."""

    exit_code = 2


class ModelLoadError(InputError):
    """The file cannot be read as an ONNX model."""


class UnsupportedModelError(InputError):
    """The model uses a feature that cannot be kept intact."""


class DataError(InputError):
    """Calibration, profile or test data does not fit the model."""


class OutputError(InputError):
    """The result cannot be written where the caller asked."""


class PipelineSpecError(InputError):
    """The pipeline text does not parse.

    Attributes
    ----------
    text : str
        The whole pipeline text.
    start, end : int
        Half-open range of the offending characters.
    """

    def __init__(self, message: str, text: str, start: int, end: int) -> None:
        self.text = text
        self.start = start
        self.end = max(end, start + 1)
        underline = " " * start + "^" + "~" * (self.end - start - 1)
        super().__init__(f"{message}\n  {text}\n  {underline}")


class UnknownPassError(InputError):
    """No pass or preset has this name.

    Attributes
    ----------
    name : str
        What the caller wrote.
    suggestions : tuple of str
        Close names, best first.
    """

    def __init__(self, name: str, suggestions: tuple[str, ...] = ()) -> None:
        self.name = name
        self.suggestions = suggestions
        hint = f"; did you mean '{suggestions[0]}'?" if suggestions else "; 'snnopt passes' lists them"
        super().__init__(f"unknown pass '{name}'{hint}")


class PassOptionError(InputError):
    """A pass has no such option, or the value has the wrong type."""


class PassError(SnnOptimizerError):
    """A pass raised or broke its contract; this is a defect of the package."""

    exit_code = 3


class ConvergenceError(PassError):
    """A fixpoint group was still changing the model at its bound."""


class VerificationError(SnnOptimizerError):
    """The result is wrong, or over the caller's budget."""

    exit_code = 1


class IRVerificationError(VerificationError):
    """A pass left the model structurally invalid."""


class BudgetError(VerificationError):
    """The caller's budget cannot be met."""


class ExecutionError(SnnOptimizerError):
    """A backend could not run the model."""

    exit_code = 4
