"""Cost models of machines that do not exist, for tests of what is chosen on them."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import numpy as np

from snn_optimizer.projection_costs import ProjectionCosts, this_machine

__all__ = ["imagined_costs", "write_costs"]


def imagined_costs(
    *,
    dense=100e-6,
    single=200e-6,
    several=200e-6,
    pooled=200e-6,
    guard: float = 1e-6,
    sizes: tuple[int, ...] = (1, 4096),
    rows: tuple[int, ...] = (1, 8, 64),
    shares: tuple[float, ...] = (0.0, 1.0),
    machine: dict | None = None,
    runtime: str | None = None,
) -> ProjectionCosts:
    """Return a cost model whose tables are the given seconds, broadcast from the last axis."""
    grid = (len(sizes), len(sizes))
    shapes = {
        "dense": (*grid, len(rows)),
        "single": (*grid, len(shares)),
        "several": (*grid, len(rows), len(shares)),
        "pooled": (*grid, len(rows), len(shares)),
    }
    given = {"dense": dense, "single": single, "several": several, "pooled": pooled}
    return ProjectionCosts(
        machine=this_machine() if machine is None else machine,
        onnxruntime=runtime or metadata.version("onnxruntime"),
        threads=1,
        date="2024-01-01",
        inputs=sizes,
        outputs=sizes,
        rows=rows,
        shares=shares,
        guard=guard,
        **{name: np.array(np.broadcast_to(np.asarray(given[name], np.float64), shapes[name])) for name in shapes},
    )


def write_costs(path: Path, **tables) -> Path:
    """Write such a cost model into a file."""
    path.write_text(json.dumps(imagined_costs(**tables).to_json()))
    return path
