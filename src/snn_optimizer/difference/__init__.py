"""What differs between two models, in terms of the network."""

from __future__ import annotations

__all__: list[str] = []
