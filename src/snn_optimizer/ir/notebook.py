"""Networks in notebooks: a small table, no script, every text escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from snn_optimizer.ir.text import equation

if TYPE_CHECKING:
    from snn_optimizer.ir.graph import SNNGraph

__all__ = ["html_table", "network_html"]

LAYERS: Final = 60  # rows that are shown


def html_table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], note: str = "") -> str:
    """Return a table of plain texts."""
    lines = ["<div><table>", f"<caption>{html.escape(caption)}</caption>"]
    lines.append(
        "<thead><tr>" + "".join(f'<th scope="col">{html.escape(each)}</th>' for each in head) + "</tr></thead>"
    )
    lines.append("<tbody>")
    lines += ["<tr>" + "".join(f"<td>{html.escape(each)}</td>" for each in row) + "</tr>" for row in rows]
    lines.append("</tbody></table>")
    if note:
        lines.append(f"<p>{html.escape(note)}</p>")
    return "\n".join([*lines, "</div>"])


def network_html(graph: SNNGraph) -> str:
    """Return the layers of a network as a table."""
    layers = graph.layers
    rows = []
    for layer in layers[:LAYERS]:
        synapses = "; ".join(
            f"{each.node.name or each.node.op} {each.node.op} {'x'.join(map(str, each.shape))}"
            for each in layer.projections
        )
        rows.append((layer.name, layer.neuron_type, f"{layer.n_neurons:,}", synapses, equation(layer)))
    more = f"{len(layers) - LAYERS:,} more layers, " if len(layers) > LAYERS else ""
    return html_table(
        f"network '{graph.module.graph.name}'",
        ("layer", "type", "neurons", "synapses", "each step"),
        rows,
        f"{more}{len(layers)} layers, {graph.total_neurons:,} neurons, {graph.total_params:,} parameters, "
        f"{graph.module.count_nodes():,} nodes",
    )
