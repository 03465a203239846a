"""Compute facts about a module on demand and keep them until it changes."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar, cast

from snn_optimizer.ir import InputDomain, Module

__all__ = ["AnalysisManager"]

Fact_co = TypeVar("Fact_co", covariant=True)


class _Analysis(Protocol[Fact_co]):
    def compute(self, module: Module, analyses: AnalysisManager) -> Fact_co: ...


class AnalysisManager:
    """Lazy, cached analyses of one module.

    An analysis is a frozen class with ``compute(module, analyses)``; the result
    is an instance of that class. ``invalidate`` is called after every change.

    Attributes
    ----------
    domain : InputDomain
        What the caller declared about the model's inputs; premise of all bounds.
    """

    def __init__(self, module: Module, domain: InputDomain | None = None) -> None:
        self.module = module
        self.domain = domain or InputDomain()
        self._cache: dict[Any, Any] = {}

    def get(self, analysis: _Analysis[Fact_co]) -> Fact_co:
        """Return the fact, computing it when the module changed since."""
        if analysis not in self._cache:
            self._cache[analysis] = analysis.compute(self.module, self)
        return cast("Fact_co", self._cache[analysis])

    def invalidate(self) -> None:
        """Forget everything; the module changed."""
        self._cache.clear()
