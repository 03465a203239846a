"""What the cleanup passes share: remarks by rule, and names that bodies hide."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from snn_optimizer.ir import GraphIndex, Module, Node, Scope, Value
from snn_optimizer.passes.base import PassContext, Refusal

__all__ = ["RANDOM", "HiddenNames", "Tally"]

RANDOM: Final = frozenset(
    {
        "Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
        "RandomUniformLike",
    }
)  # fmt: skip
"""Standard operators that may give another value at every call."""

_PLACES_LISTED: Final = 16
_LACKS_FACTS: Final = frozenset({"may-widen", "operand-not-constant", "rank-unknown", "size-unknown", "type-unknown"})


@dataclass(slots=True)
class Tally:
    """Collects what a pass did and left alone: one remark per rule, not one per node.

    Attributes
    ----------
    context : PassContext
    changes : int
        Rewrites recorded so far.
    """

    context: PassContext
    changes: int = 0
    _applied: dict[str, list[str]] = field(default_factory=dict)
    _missed: dict[str, tuple[Refusal, list[str]]] = field(default_factory=dict)

    def admits(self, rule: str, place: str) -> bool:
        """Tell whether a rewrite may be made, see :meth:`PassContext.admits`."""
        return self.context.admits(rule, place)

    def applied(self, rule: str, place: str) -> None:
        """Record a rewrite."""
        self.changes += 1
        self._applied.setdefault(rule, []).append(place)

    def missed(self, refusal: Refusal, place: str) -> None:
        """Record a refusal; the reason of the first one of a name is the one reported."""
        self._missed.setdefault(refusal.rule, (refusal, []))[1].append(place)

    def settle(self, context: PassContext, once: Callable[[], None]) -> None:
        """Run ``once``, and again while it changes something and then leaves nodes alone for want of facts.

        Shape inference may find more in the changed module. Refusals are those of the last round.
        """
        while True:
            before = self.changes
            self._missed.clear()
            once()
            if self.changes == before or _LACKS_FACTS.isdisjoint(self._missed):
                return
            context.analyses.invalidate()

    def counts(self) -> dict[str, int]:
        """Return how often each rule applied."""
        return {rule: len(places) for rule, places in self._applied.items()}

    def report(self, context: PassContext, sentences: Mapping[str, str]) -> None:
        """Write the remarks.

        Parameters
        ----------
        context : PassContext
        sentences : mapping from rule to str
            What was done to the first place.
        """
        for rule, places in self._applied.items():
            message = f"{sentences[rule]}{_in_all(len(places))}"
            context.applied(rule, places[0], message, number=len(places), places=places[:_PLACES_LISTED])
        for refusal, places in self._missed.values():
            told = Refusal(refusal.rule, f"{refusal.reason}{_in_all(len(places))}")
            context.missed(told, places[0], number=len(places), places=places[:_PLACES_LISTED])


def _in_all(number: int) -> str:
    return "" if number == 1 else f"; {number} places in all"


class HiddenNames:
    """Finds names that bodies reuse for values of their own.

    Values are linked by object, but a file links them by name: a body that has its own
    ``t`` cannot be made to read the ``t`` around it.
    """

    def __init__(self, module: Module, index: GraphIndex) -> None:
        self._module = module
        self._index = index
        self._names: dict[int, dict[str, int]] = {}

    def hide(self, value: Value, readers: Iterable[Node], home: Scope) -> bool:
        """Tell whether one of ``readers``, in or below scope ``home``, cannot see ``value``, which ``home`` can."""
        for reader in readers:
            scope: Scope | None = self._index.scope_of(reader)
            while scope is not None and scope is not home:
                if self._of(scope).get(value.name, id(value)) != id(value):
                    return True
                scope = scope.parent
        return False

    def _of(self, scope: Scope) -> dict[str, int]:
        graph = scope.graph
        names = self._names.get(id(graph))
        if names is None:
            made = (value for node in graph.nodes for value in node.outputs if value.name)
            values = (*graph.inputs, *self._module.initializers_of(graph), *made)
            names = self._names[id(graph)] = {value.name: id(value) for value in values}
        return names
