"""The caller's own check: a command that gets the file of a model and says by its exit code whether it is good."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from snn_optimizer.errors import InputError
from snn_optimizer.ir import SNNGraph

__all__ = ["CheckCommand", "CheckResult"]

PLACE = "{}"  # in a check command, where the candidate's file goes
LONGEST = 200  # characters of a command's last line that are shown


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check said about one model: whether it fails, and how in one line."""

    fails: bool
    text: str


@dataclass(slots=True)
class CheckCommand:
    """A command that exits with 0 for a good model.

    Attributes
    ----------
    words : tuple of str
        Run without a shell; ``{}`` in a word stands for the model's file.
    folder : Path
        Where the files are written; each is gone after its check.
    timeout : float, optional
        Seconds after which the check counts as failed.
    pattern : str
        A regular expression that the output of a failed check has to match somewhere; a failure that does
        not is another one, and does not count.
    """

    words: tuple[str, ...]
    folder: Path
    timeout: float | None = None
    pattern: str = ""
    number: int = 0

    @classmethod
    def of(cls, words: Sequence[str], folder: Path, timeout: float | None = None, pattern: str = "") -> CheckCommand:
        """Return the command, or refuse one that could not judge anything.

        Raises
        ------
        InputError
            If no word has a place for the file, or the pattern is not a regular expression.
        """
        if not any(PLACE in word for word in words):
            raise InputError(f"the check command '{shlex.join(words)}' names no model: write {{}} where its file goes")
        return cls(tuple(words), folder, timeout, compiled(pattern))

    def __call__(self, model: SNNGraph | onnx.ModelProto) -> CheckResult:
        """Write a model and run the command on it.

        Raises
        ------
        InputError
            If the command cannot be started.
        """
        self.number += 1
        folder = self.folder / str(self.number)
        folder.mkdir()
        try:
            path = folder / "candidate.onnx"
            if isinstance(model, SNNGraph):
                model.save(path)
            else:
                path.write_bytes(model.SerializeToString())
            return self._run([word.replace(PLACE, str(path)) for word in self.words])
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _run(self, command: Sequence[str]) -> CheckResult:
        try:
            # the caller's own command, run as given, without a shell
            done = subprocess.run(command, capture_output=True, timeout=self.timeout, check=False)  # noqa: S603
        except subprocess.TimeoutExpired as expired:
            text = f"the check took more than {self.timeout:g} s"
            said = ((expired.stdout or b"") + (expired.stderr or b"")).decode(errors="replace")
            return CheckResult(self._counts(f"{said}\n{text}"), text)
        except OSError as error:
            raise InputError(f"the check command '{command[0]}' cannot be run: {error.strerror or error}") from error
        output = (done.stdout + done.stderr).decode(errors="replace").strip()
        last = output.splitlines()[-1:]
        said = f", its last line: {last[0][:LONGEST]}" if last else ""
        text = f"the check exits with {done.returncode}{said}"
        if done.returncode and not self._counts(output):
            return CheckResult(False, f"{text}, which does not match '{self.pattern}'")
        return CheckResult(done.returncode != 0, text)

    def _counts(self, output: str) -> bool:
        return re.search(self.pattern, output, re.MULTILINE) is not None


def compiled(pattern: str) -> str:
    """Return a regular expression that is one.

    Raises
    ------
    InputError
        If it is not.
    """
    try:
        re.compile(pattern)
    except re.error as error:
        raise InputError(f"--fail-regex '{pattern}' is not a regular expression: {error}") from error
    return pattern
