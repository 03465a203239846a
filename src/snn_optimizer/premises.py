"""What is declared of the inputs, held against the model and its data."""

from __future__ import annotations

from snn_optimizer.errors import DataError
from snn_optimizer.execution import Dataset
from snn_optimizer.ir import InputDomain, SNNGraph
from snn_optimizer.ir.activity_limit import largest_activity

__all__ = ["forbid_more_active", "forbid_unknown_inputs", "widened"]


def widened(domain: InputDomain, calibration: Dataset | None, warnings: list[str]) -> InputDomain:
    """Let the domain cover the calibration data: a proof for other inputs would be worth nothing.

    Parameters
    ----------
    warnings : list of str
        Takes up what was widened.
    """
    if calibration is None:
        return domain
    for name, array in calibration.feeds.items():
        if array.dtype.kind != "f" or not array.size:
            continue
        low, high = domain.scalar(name)
        seen_low, seen_high = float(array.min()), float(array.max())
        if seen_low < low or seen_high > high:
            domain = domain.widened(name, seen_low, seen_high)
            warnings.append(
                f"input '{name}' takes values {seen_low:g}..{seen_high:g} in the calibration data: its declared range "
                f"{low:g}..{high:g} was widened to cover them"
            )
    return domain


def forbid_unknown_inputs(domain: InputDomain, graph: SNNGraph) -> None:
    """Refuse a declaration of an input that the model has not: nothing would come of it."""
    domain.forbid_unknown([value.name for value in graph.module.graph.inputs])


def forbid_more_active(domain: InputDomain, data: Dataset | None, what: str) -> None:
    """Refuse data in which more entries are active than were declared: one of the two must be wrong."""
    for name, limit in ({} if data is None else domain.active_limits(data.feeds)).items():
        array = data.feeds[name]  # type: ignore[union-attr]  # no limits without data
        found = largest_activity(array)
        if found > limit:
            raise DataError(
                f"input-max-active: input '{name}' has {found} non-zero entries at one step of one sample of the "
                f"{what} data, more than the {limit} declared; declare {name}={found} or leave --input-max-active out"
            )
