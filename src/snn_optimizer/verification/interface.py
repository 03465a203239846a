"""The interface of two models: what callers of the first would notice before anything runs."""

from __future__ import annotations

from collections.abc import Sequence

from snn_optimizer.execution.ort import Port, Session

__all__ = ["interface_difference"]


def interface_difference(before: Session, after: Session) -> str | None:
    """Return how the inputs or outputs differ in one sentence, None when they agree.

    Names, order, element types, ranks and fixed sizes must agree. An input may not
    become narrower: an open size stays open. Names of open sizes are free.
    """
    return _ports_differ("input", before.inputs, after.inputs, is_input=True) or _ports_differ(
        "output", before.outputs, after.outputs, is_input=False
    )


def _ports_differ(kind: str, before: Sequence[Port], after: Sequence[Port], *, is_input: bool) -> str | None:
    old, new = [port.name for port in before], [port.name for port in after]
    if lost := [name for name in old if name not in new]:
        return f"{kind} '{lost[0]}' is gone"
    if added := [name for name in new if name not in old]:
        return f"{kind} '{added[0]}' is new"
    if old != new:
        return f"the {kind}s are in another order: {', '.join(new)} instead of {', '.join(old)}"
    for left, right in zip(before, after, strict=True):
        if left.dtype != right.dtype:
            return f"{kind} '{left.name}' is {right.dtype} instead of {left.dtype}"
        if _sizes_differ(left, right, is_input=is_input):
            return f"{kind} '{left.name}' is {right} instead of {left}"
    return None


def _sizes_differ(left: Port, right: Port, *, is_input: bool) -> bool:
    if left.shape is None or right.shape is None:
        return is_input and (left.shape is None) != (right.shape is None)
    if len(left.shape) != len(right.shape):
        return True
    pairs = zip(left.shape, right.shape, strict=True)
    return any(
        (isinstance(old, int) and isinstance(new, int) and old != new)
        or (is_input and not isinstance(old, int) and isinstance(new, int))
        for old, new in pairs
    )
