"""Figures as SVG that takes its colours from the page it is in, so that one figure serves light and dark."""

from __future__ import annotations

import io
import re
from typing import Any, Final

from snn_optimizer.errors import InputError

__all__ = ["AFTER", "BEFORE", "INK", "MUTED", "THEMED", "new_figure", "require_libraries", "to_svg"]

INK: Final = "#0a0b0c"
MUTED: Final = "#0d0e0f"
BEFORE: Final = "#111213"
AFTER: Final = "#141516"
THEMED: Final = {INK: "var(--ink)", MUTED: "var(--muted)", BEFORE: "var(--before)", AFTER: "var(--after)"}
"""Colours that stand for those of the page."""

_STYLE: Final[dict[str, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "snnopt",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
_HEAD: Final = re.compile(r"\A.*?(?=<svg)", re.DOTALL)
_METADATA: Final = re.compile(r"\s*<metadata>.*?</metadata>", re.DOTALL)
_SIZE: Final = re.compile(r'\A<svg([^>]*?) width="([\d.]+)pt"([^>]*?)>', re.DOTALL)
_HEIGHT: Final = re.compile(r' height="[\d.]+pt"')
_NAMES: Final = re.compile(r'(\bid="|url\(#|href="#)')


def require_libraries(path: str) -> None:
    """Refuse to begin a report that cannot be written.

    Raises
    ------
    InputError
        If a library of the extra ``report`` is not installed.
    """
    try:
        import jinja2  # noqa: F401, PLC0415 - optional
        import matplotlib as mpl  # noqa: F401, PLC0415 - optional
    except ImportError as error:
        raise InputError(
            f"report '{path}' needs {error.name}, which is not installed; pip install 'snn-optimizer[report]'"
        ) from None


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure, inches."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional, and heavy

    return Figure(figsize=(width, height), layout="constrained")


def to_svg(draw: Any, width: float, height: float, *, name: str, title: str) -> str:
    """Return a figure as an SVG element.

    Parameters
    ----------
    draw : callable
        Draws into the figure it is given.
    name : str
        Unique within the page; prefix of all identifiers in the figure.
    title : str
        Escaped text that says what the figure shows, for those who cannot see it.
    """
    from matplotlib import rc_context  # noqa: PLC0415 - optional, and heavy

    with rc_context(_STYLE):
        figure = new_figure(width, height)
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None}, dpi=72)
    text = _METADATA.sub("", _HEAD.sub("", buffer.getvalue(), count=1))
    head, rest = text.split(">", 1)
    head = _HEIGHT.sub("", head + ">")
    head = _SIZE.sub(
        lambda m: f'<svg{m[1]}{m[3]} role="img" aria-label="{title}" style="max-width:{float(m[2]) * 4 / 3:.0f}px">',
        head,
    )
    text = _NAMES.sub(lambda match: f"{match[1]}{name}-", head + rest)
    for colour, variable in THEMED.items():
        text = text.replace(colour, variable)
    return text.strip()
