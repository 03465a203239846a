"""How an exporter writes: every field is one habit, the defaults are those of a plain export."""

from __future__ import annotations

from dataclasses import dataclass, fields

OUTPUTS = (
    "stack", "concat", "sum", "sum-reduce", "mean", "mean-reduce", "max", "max-reduce", "last", "membranes", "finals",
)  # fmt: skip
CHOICES = {
    "time_axis": (0, 1),
    "slicing": ("gather", "slice", "split", "static"),
    "hoist": ("none", "first", "every"),
    "order": ("steps", "slices-first", "layers"),
    "initial": ("shape", "expand", "constant", "scalar", "precomputed", "folded"),
    "reset_signal": ("spikes", "difference", "recomputed"),
    "comparison": ("difference", "direct"),
    "one_minus": ("sub", "neg-add"),
    "truncation": ("floor", "cast"),
    "constants": ("initializers", "literals", "everything"),
    "weights": ("shared", "identity", "copies"),
    "names": ("scoped", "random", "none"),
}
SWITCHES = (
    "sum_from_zero", "drop_unit_threshold", "clip_decay", "graded_factor", "merge_constants", "swap_operands",
    "dropout",
)  # fmt: skip


@dataclass(frozen=True)
class Habits:
    """The habits of one export.

    time_axis:      of the input and of stacked outputs.
    slicing:        `gather` with a scalar index, `slice` and Squeeze, one `split` and Squeezes, `static`: the input
                    has no time.
    hoist:          `first`: the first synapse runs once, over the stack before slicing (or over the static input);
                    `every`: all synapses do, spikes are stacked and sliced between layers (SpikingJelly "m").
    order:          of nodes: `steps`, `slices-first`, `layers`.
    outputs:        some of `OUTPUTS`, of the last layer; `mean` is a sum divided by T; `finals` are all states.
    sum_from_zero:  the first sum is Add(spikes, 0.0).
    initial:        `shape` Shape and ConstantOfShape, `expand` Shape and Expand, `constant` [B, N] zeros, `scalar` a
                    0-d zero, `precomputed` what follows from zeros is a [B, N] constant, `folded` terms with zero
                    are gone.
    batch:          a fixed size, None is symbolic.
    reset_signal:   of a delayed reset: the `spikes` of the step before, only their `difference` from the threshold
                    is shared, or all `recomputed`.
    comparison:     `difference` Sub and comparison with 0.0, `direct` comparison with the threshold.
    drop_unit_threshold: Mul and Div by a threshold of 1.0 are left out.
    clip_decay:     Clip(beta, 0, 1) is computed in the graph.
    graded_factor:  spikes are multiplied with 1.0.
    one_minus:      `sub` Sub(1, s), `neg-add` Add(Neg(s), 1).
    truncation:     of several spikes: `floor` Abs, Floor, Sign, Mul; `cast` to INT64 and back.
    constants:      `initializers`, `literals`: numbers in the code are Constant nodes, `everything` is.
    merge_constants: equal constants are one, whatever their roles; weights are not concerned.
    weights:        `shared` by all steps, one `identity` alias per step, equal `copies` per step.
    swap_operands:  of commutative operators, by role, the same in all steps.
    names:          of nodes and values: `scoped`, `random`, `none` (no node names).
    identity_noise: the share of values that an Identity follows.
    dropout:        a Dropout before each synapse but the first.
    seed:           of swaps, names and noise.
    """

    time_axis: int = 0
    slicing: str = "gather"
    hoist: str = "none"
    order: str = "steps"
    outputs: tuple[str, ...] = ("stack",)
    sum_from_zero: bool = False
    initial: str = "shape"
    batch: int | None = None
    reset_signal: str = "spikes"
    comparison: str = "difference"
    drop_unit_threshold: bool = False
    clip_decay: bool = False
    graded_factor: bool = False
    one_minus: str = "sub"
    truncation: str = "floor"
    constants: str = "initializers"
    merge_constants: bool = False
    weights: str = "shared"
    swap_operands: bool = False
    names: str = "scoped"
    identity_noise: float = 0.0
    dropout: bool = False
    seed: int = 0

    def __post_init__(self):
        for field in fields(self):
            if field.name in CHOICES and getattr(self, field.name) not in CHOICES[field.name]:
                raise ValueError(f"no such habit: {field.name}={getattr(self, field.name)!r}")
        if not self.outputs or set(self.outputs) - set(OUTPUTS):
            raise ValueError(f"no such outputs: {self.outputs}")
        if self.initial in {"constant", "precomputed"} and self.batch is None:
            raise ValueError(f"initial={self.initial!r} needs a fixed batch")
