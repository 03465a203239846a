"""Number the rewrites of passes on classes of units, and stop them at the limit of a bisection."""

from __future__ import annotations

import numpy as np

from snn_optimizer.analyses import NO_UNIT, UnitGroups
from snn_optimizer.passes.base import PassContext
from snn_optimizer.passes.unit_surgery import Mask

__all__ = ["admitted"]


def admitted(context: PassContext, rule: str, groups: UnitGroups, selected: Mask) -> Mask:
    """Return those of the selected classes that may be rewritten, each of them one rewrite.

    They are numbered population by population, in the order of their units; then those no population has.
    """
    result = selected.copy()
    pending = selected.copy()
    places = [(population.name, groups.classes_at(population.labels)) for population in groups.populations]
    for name, classes in (*places, ("no population", np.arange(groups.classes))):
        units = np.flatnonzero(np.where(classes == NO_UNIT, False, pending[classes]))
        _, first = np.unique(classes[units], return_index=True)
        units = units[np.sort(first)]
        number = context.rewrites.admit(rule, name, units.tolist(), number=len(units))
        result[classes[units[number:]]] = False
        pending[classes[units]] = False
    return result
