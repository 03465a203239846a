"""Which paths a glob means: ``*`` within a folder, ``**`` through folders."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from snn_optimizer.errors import InputError

__all__ = ["expand_glob", "is_glob", "matches"]


def is_glob(text: str) -> bool:
    """Tell whether a text has the signs of a glob."""
    return any(sign in text for sign in "*?[")


def matches(path: str, pattern: str) -> bool:
    """Tell whether a relative path, with slashes, is one of those a glob means; without a slash names in any folder."""
    return _compiled(pattern).fullmatch(path if "/" in pattern else path.rsplit("/", 1)[-1]) is not None


def expand_glob(folder: Path, pattern: str) -> list[Path]:
    """Return the files below a folder that a glob means, sorted."""
    try:
        return sorted(path for path in folder.glob(pattern) if path.is_file())
    except (ValueError, NotImplementedError, re.error) as error:
        raise InputError(f"glob '{pattern}' cannot be read: {error}") from None


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts, position = [], 0
    while position < len(pattern):
        if pattern.startswith("**/", position):
            parts.append("(?:[^/]+/)*")
            position += 3
            continue
        sign = pattern[position]
        end = pattern.find("]", position + 2) if sign == "[" else -1
        if pattern.startswith("**", position):
            parts.append(".*")
            position += 1
        elif end > 0:
            held = pattern[position + 1 : end].replace("\\", "\\\\")
            parts.append(f"[{'^' + held[1:] if held[0] == '!' else held}]")
            position = end
        else:
            parts.append({"*": "[^/]*", "?": "[^/]"}.get(sign, re.escape(sign)))
        position += 1
    try:
        return re.compile("".join(parts))
    except re.error as error:
        raise InputError(f"glob '{pattern}' cannot be read: {error}") from None
