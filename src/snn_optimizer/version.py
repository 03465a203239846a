"""The version of this package and of those it works with, where every layer can read them."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["__version__", "installed_versions"]

__version__ = "0.1.0"


def installed_versions(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of distributions; one that was built under another name is missing."""
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - every start reads this module

    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
