"""The pages of the documentation, and the blocks of code in them with what is said before them in a comment.

<!-- needs: MODULE, ...; instead: FILE as NAME, ... -->
    The next Python block runs where the modules are installed; elsewhere files of the project stand for what it
    writes, so that the rest of the page can run.
<!-- name: NAME -->, <!-- file: PATH -->
    The next block is known by a name; is the text of a file of the project.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_BLOCK = re.compile(r"(?:<!-- (?P<said>(?:needs|name|file): [^>]*) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```", re.DOTALL | re.MULTILINE)  # fmt: skip


@dataclass(frozen=True)
class Block:
    """One block of code."""

    document: Path
    line: int
    language: str
    text: str
    needs: tuple[str, ...] = ()
    stand_ins: tuple[tuple[str, str], ...] = ()
    name: str = ""
    file: str = ""

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def blocks_of(document: Path) -> list[Block]:
    content = document.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(content):
        said = dict(part.split(": ", 1) for part in (match["said"] or "").split("; ") if part)
        pairs = tuple(tuple(pair.split(" as ")) for pair in _list(said.get("instead", "")))
        found.append(
            Block(
                document, content.count("\n", 0, match.start("text")), match["language"], match["text"],
                _list(said.get("needs", "")), pairs, said.get("name", ""), said.get("file", ""),
            )
        )  # fmt: skip
    return found


def block_named(document: Path, name: str) -> Block:
    return next(block for block in blocks_of(document) if block.name == name)


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
