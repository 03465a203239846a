"""What the caller allows a lossy pass to cost."""

from __future__ import annotations

from dataclasses import dataclass

from snn_optimizer.errors import InputError

__all__ = ["Budget"]


@dataclass(frozen=True, slots=True)
class Budget:
    """Upper ends, each a fraction between 0 and 1; ``None`` sets no limit.

    Attributes
    ----------
    accuracy_drop : float, optional
        Accuracy on labelled samples may fall by this much.
    decision_change : float, optional
        This fraction of samples may be decided otherwise; needs no labels.
    spike_change : float, optional
        This fraction of the elements of the output spike trains may differ.
    """

    accuracy_drop: float | None = None
    decision_change: float | None = None
    spike_change: float | None = None

    def __post_init__(self) -> None:
        for name in ("accuracy_drop", "decision_change", "spike_change"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise InputError(f"--max-{name.replace('_', '-')} is {value:g}; give a fraction between 0 and 1")

    def limits(self) -> list[tuple[str, float]]:
        """Return the limits that are set, by name."""
        named = [(name, getattr(self, name)) for name in ("accuracy_drop", "decision_change", "spike_change")]
        return [(name, float(value)) for name, value in named if value is not None]

    @property
    def is_set(self) -> bool:
        """Tell whether any limit is set."""
        return bool(self.limits())
