"""Models of a git revision, read without touching the working tree."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from google.protobuf.message import DecodeError
from onnx import ModelProto

from snn_optimizer.errors import InputError
from snn_optimizer.gate.pointers import Pointer, read_pointer
from snn_optimizer.ir.wire import WireError, extract
from snn_optimizer.measures.amounts import amount_text
from snn_optimizer.measures.composition import external_locations

__all__ = ["Revision"]

_SECONDS = 300
# set within a git hook, and relative to where that runs
_OF_HOOKS = frozenset({"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"})


@dataclass(frozen=True, slots=True)
class Revision:
    """A commit of the repository that a folder is in.

    Attributes
    ----------
    name : str
        As the caller wrote it.
    commit : str
        Its full hash.
    folder : Path
        Where git runs.
    """

    name: str
    commit: str
    folder: Path

    @classmethod
    def find(cls, name: str, folder: Path) -> Revision:
        """Look a revision up.

        Raises
        ------
        InputError
            If the folder is in no repository, or there is no such revision.
        """
        if name.startswith("-"):
            raise InputError(f"baseline '{name}' is no revision: it begins with '-'")
        inside = _git(folder, "rev-parse", "--is-inside-work-tree")
        if inside.returncode:
            raise InputError(f"baseline '{name}' is no file, and no git revision: {_reason(inside)}")
        found = _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        if found.returncode:
            shallow = _git(folder, "rev-parse", "--is-shallow-repository").stdout.strip() == b"true"
            remote, _, branch = name.partition("/")
            fetch = f"git fetch --depth=1 {remote} +refs/heads/{branch}:refs/remotes/{name}" if branch else ""
            hint = f"; the clone is shallow, fetch it first: {fetch or 'git fetch --unshallow'}" if shallow else ""
            raise InputError(
                f"baseline '{name}' is neither a file nor a revision of the repository in '{folder}'{hint}"
            )
        return cls(name, found.stdout.decode().strip(), folder)

    def extract_model(self, path: Path, target: Path) -> Path | None:
        """Write the model that was at a path, and its external weights, into a folder; None when there was none.

        Raises
        ------
        InputError
            If it is a Git LFS pointer whose file is not here, or weights it names are missing.
        """
        if not self._write(path.parent, path.name, target):
            return None
        model = target / path.name
        data = model.read_bytes()
        try:
            locations = external_locations(ModelProto.FromString(extract(memoryview(data), os.urandom(16), 4096)))
        except (WireError, DecodeError) as error:
            raise InputError(f"'{path}' of {self.name} is no ONNX model, or cut off ({error})") from error
        for location in locations:
            parts = PurePosixPath(location.replace("\\", "/"))
            if parts.is_absolute() or ".." in parts.parts or ":" in location or "\0" in location:
                raise InputError(f"'{path}' of {self.name}: external location '{location}' leaves the model's folder")
            if not self._write(path.parent, parts.as_posix(), target):
                raise InputError(f"'{path}' of {self.name}: its external data '{location}' is not in that revision")
        return model

    def _write(self, folder: Path, name: str, target: Path) -> bool:
        """Write a file of the revision; False when it is not in there."""
        listed = self._run(folder, "ls-tree", "-z", self.commit, "--", f":(literal){name}")
        entry = listed.split(b"\0")[0].split(b"\t")[0].split()  # mode, kind, object
        if len(entry) != 3:
            return False
        if entry[1] != b"blob" or entry[0] == b"120000":
            raise InputError(f"'{folder / name}' of {self.name} is a {'link' if entry[1] == b'blob' else 'folder'}")
        data = self._run(folder, "cat-file", "blob", entry[2].decode())
        pointer = read_pointer(data)
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data if pointer is None else self._fetched(pointer, folder / name))
        return True

    def _fetched(self, pointer: Pointer, path: Path) -> bytes:
        """Return the contents of a large file that was fetched before."""
        common = self._run(path.parent, "rev-parse", "--path-format=absolute", "--git-common-dir").decode().rstrip("\n")
        digest = pointer.digest
        try:
            return (Path(common) / "lfs" / "objects" / digest[:2] / digest[2:4] / digest).read_bytes()
        except OSError:
            raise InputError(
                f"'{path}' of {self.name} is a Git LFS pointer to {amount_text(pointer.size, 'bytes')} that are not "
                f"here; fetch them with: git lfs fetch origin {self.commit[:12]}"
            ) from None

    def _run(self, folder: Path, *arguments: str) -> bytes:
        done = _git(folder, *arguments)
        if done.returncode:
            raise InputError(f"git {arguments[0]} of {self.name} failed in '{folder}': {_reason(done)}")
        return done.stdout


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    environment = {name: held for name, held in os.environ.items() if name not in _OF_HOOKS}
    environment |= {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    try:
        return subprocess.run(  # noqa: S603 - no shell; revisions that begin with '-' were refused
            ["git", "-C", str(folder), *arguments],  # noqa: S607 - the caller's git
            capture_output=True, check=False, env=environment, timeout=_SECONDS, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except FileNotFoundError:
        raise InputError("a baseline that is a git revision needs 'git', which is not installed") from None
    except subprocess.TimeoutExpired:
        raise InputError(f"git {arguments[0]} in '{folder}' took more than {_SECONDS} s") from None


def _reason(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[0].removeprefix("fatal: ") if lines else f"exit code {done.returncode}"
