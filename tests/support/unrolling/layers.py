"""One step of one layer, node by node."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.support.unrolling.graph import FLOAT, Constant, GraphWriter, Operand
from tests.support.unrolling.network import EPSILON, Network

ZERO = np.float32(0)


@dataclass(frozen=True, eq=False)
class State:
    """What a layer carries: membrane, current, the spikes it feeds back, and what may be shared with the next step."""

    membrane: Operand
    current: Operand | None = None
    spikes: Operand | None = None
    difference: Operand | None = None
    fired: Operand | None = None


def literal(value: float, role: str) -> Constant:
    """A float in the code."""
    return Constant(np.asarray(value, np.float32), role)


def integers(values: int | list[int], role: str) -> Constant:
    """Indices, axes or a shape in the code."""
    return Constant(np.asarray(values, np.int64), role)


class LayerWriter:
    """Writes the synapse and the neuron of one layer."""

    def __init__(self, writer: GraphWriter, network: Network, index: int):
        self.writer = writer
        self.habits = writer.habits
        self.index = index
        self.name = f"layer{index + 1}"
        self.layer = network.layers[index]
        self.neuron = self.layer.neuron
        self.arrays = network.arrays()[index]
        self.shape_before = network.shapes[index]
        self.shape = network.shapes[index + 1]

    def parameter(self, role: str) -> Constant:
        array = getattr(self.arrays, role)
        return Constant(np.asarray(array, np.float32), role, "parameter")

    # -- synapse ---------------------------------------------------------------------------

    def drive(self, value: str) -> str:
        """The current that the values of one step cause."""
        emit = self.writer.emit
        if self.habits.dropout and self.index:
            value = emit("Dropout", [value], "dropout")
        if self.layer.is_convolution:
            return self._convolution(value)
        if len(self.shape_before) > 1:
            value = emit("Flatten", [value], "flatten", axis=1)
        if not self.layer.synapse.startswith("gemm"):
            return self._product(value)
        operands: list[Operand] = [value, self.writer.weight("weight", self.arrays.weight)]
        if self.arrays.bias is not None:
            operands.append(self.writer.weight("bias", self.arrays.bias))
        return emit("Gemm", operands, "synapse", transB=1)

    def drives(self, stack: str, steps: int) -> str:
        """The currents of all steps from a stack of values."""
        emit, axis = self.writer.emit, self.habits.time_axis
        lead = [steps, -1] if axis == 0 else [-1, steps]
        if self.habits.dropout and self.index:
            stack = emit("Dropout", [stack], "dropout")
        if not self.layer.is_convolution:
            if len(self.shape_before) > 1:
                target = integers([*lead, int(np.prod(self.shape_before))], "rows")
                stack = emit("Reshape", [stack, target], "flatten")
            return self._product(stack)
        stack = emit("Reshape", [stack, integers([-1, *self.shape_before], "frames")], "fold")
        return emit("Reshape", [self._convolution(stack), integers([*lead, *self.shape], "sequence")], "unfold")

    def _product(self, value: str) -> str:
        weight = np.ascontiguousarray(self.arrays.weight.T)
        product = self.writer.emit("MatMul", [value, self.writer.weight("weight", weight)], "synapse")
        if self.arrays.bias is None:
            return product
        return self.writer.emit("Add", [product, self.writer.weight("bias", self.arrays.bias)], "synapse.add")

    def _convolution(self, value: str) -> str:
        emit = self.writer.emit
        operands = [value, self.writer.weight("weight", self.arrays.weight)]
        if self.arrays.bias is not None:
            operands.append(self.writer.weight("bias", self.arrays.bias))
        value = emit("Conv", operands, "synapse", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        if self.arrays.normalisation is not None:
            roles = ("scale", "shift", "mean", "variance")
            numbers = [self.writer.weight(*each) for each in zip(roles, self.arrays.normalisation, strict=True)]
            value = emit("BatchNormalization", [value, *numbers], "normalise", epsilon=float(EPSILON))
        if self.layer.pool:
            op = "MaxPool" if self.layer.pool == "max" else "AveragePool"
            value = emit(op, [value], "pool", kernel_shape=[2, 2], strides=[2, 2])
        return value

    # -- states ----------------------------------------------------------------------------

    def initial(self, drive: str) -> State:
        """The states before the first step; `drive` shows their shape."""
        zeros = self._zeros(drive, self.habits.initial)
        spikes: Operand | None = None
        if self.layer.recurrent:
            scalar = self.habits.initial == "scalar"  # a Gemm reads rows
            spikes = self._zeros(drive, "expand") if scalar else zeros
        return State(zeros, zeros if self.neuron.has_current else None, spikes)

    def _zeros(self, drive: str, initial: str) -> Operand:
        emit, shape = self.writer.emit, (self.habits.batch or 1, *self.shape)
        match initial:
            case "constant":
                return Constant(np.zeros(shape, np.float32), "initial")
            case "precomputed":
                return Constant(np.zeros(shape, np.float32), "initial", "initial")
            case "folded":
                return Constant(np.asarray(ZERO), "initial", "initial")
            case "scalar":
                return literal(0, "initial")
            case "expand":
                return emit("Expand", [literal(0, "zero"), emit("Shape", [drive], "shape")], "initial")
            case _:
                return emit("ConstantOfShape", [emit("Shape", [drive], "shape")], "initial")

    # -- neuron ----------------------------------------------------------------------------

    def step(self, drive: str, state: State, residual: str | None = None) -> tuple[str, State]:
        """The output of a step and the states after it."""
        drive = self._feedback(drive, state.spikes)
        membrane, current = state.membrane, state.current
        fired: Operand | None = None
        in_charge = self.neuron.charge == "synaptic" and self.neuron.reset == "zero"
        if self.neuron.delayed:
            fired = self._reset_signal(state)
            if self.neuron.reset != "subtract" and not in_charge:
                membrane = self._reset(membrane, fired, "before")
        charged, current = self._charge(drive, membrane, current, fired if in_charge else None)
        if self.neuron.output == "membrane":
            return self._known(charged), State(charged, current)
        if self.neuron.output == "counts":
            counts, after = self._counts(charged)
            return self._output(counts, residual), State(after, current, counts)
        if fired is not None and in_charge:
            charged = self.writer.binary("Sub", charged, self.writer.binary("Mul", charged, fired, "wiped"), "wipe")
        elif fired is not None and self.neuron.reset == "subtract":
            charged = self._reset(charged, fired, "before")
        difference, cast = self._fire(charged, "fire")
        spikes = cast
        if self.habits.graded_factor:
            factor = Constant(np.asarray(1, np.float32), "graded_spikes_factor", "parameter")
            spikes = self.writer.binary("Mul", cast, factor, "graded")
        after = charged
        if self.neuron.reset != "none" and not self.neuron.delayed:
            after = self._reset(charged, spikes, "after")
        return self._output(spikes, residual), State(after, current, spikes, difference, cast)

    def _known(self, value: Operand) -> str:
        return self.writer.write(value)

    def _output(self, spikes: Operand, residual: str | None) -> str:
        value = self._known(spikes)
        return value if residual is None else self.writer.emit("Add", [value, residual], "residual")

    def _feedback(self, drive: str, spikes: Operand | None) -> str:
        if not self.layer.recurrent or spikes is None:
            return drive
        weight, bias = self.arrays.recurrent, self.arrays.recurrent_bias
        assert weight is not None
        if isinstance(spikes, Constant) and spikes.kind == "initial":
            silent = np.zeros(weight.shape[0], np.float32) if bias is None else bias
            shape = silent.shape if self.habits.initial == "folded" else (self.habits.batch or 1, *silent.shape)
            fed_back: Operand = Constant(np.broadcast_to(silent, shape), "recurrent.first", "initial")
        else:
            operands = [spikes, self.writer.weight("recurrent.weight", weight)]
            if bias is not None:
                operands.append(self.writer.weight("recurrent.bias", bias))
            fed_back = self.writer.emit("Gemm", operands, "recurrent", transB=1)
        return self._known(self.writer.binary("Add", drive, fed_back, "feedback"))

    def _reset_signal(self, state: State) -> Operand:
        shared = self.habits.reset_signal
        if shared == "spikes" and state.fired is not None:
            return state.fired
        difference = state.difference if shared != "recomputed" else None
        return self._fire(state.membrane, "signal", difference)[1]

    def _fire(self, membrane: Operand, role: str, difference: Operand | None = None) -> tuple[Operand | None, Operand]:
        binary = self.writer.binary
        op = "Greater" if self.neuron.fire == "gt" else "GreaterOrEqual"
        threshold = self.parameter("threshold")
        if self.habits.comparison == "direct":
            return None, self.writer.to_float(binary(op, membrane, threshold, f"{role}.passed"), f"{role}.spikes")
        if difference is None:
            difference = binary("Sub", membrane, threshold, f"{role}.difference")
        passed = binary(op, difference, literal(0, f"{role}.zero"), f"{role}.passed")
        return difference, self.writer.to_float(passed, f"{role}.spikes")

    def _reset(self, membrane: Operand, fired: Operand, role: str) -> Operand:
        binary = self.writer.binary
        if self.neuron.reset == "subtract":
            if not self._drops_threshold():
                fired = binary("Mul", fired, self.parameter("threshold"), f"{role}.amount")
            return binary("Sub", membrane, fired, f"{role}.reset")
        one = literal(1, f"{role}.one")
        if self.habits.one_minus == "sub" or isinstance(fired, Constant):
            silent = binary("Sub", one, fired, f"{role}.silent")
        else:
            silent = binary("Add", self.writer.emit("Neg", [fired], f"{role}.negated"), one, f"{role}.silent")
        kept = binary("Mul", silent, membrane, f"{role}.kept")
        if self.neuron.reset == "zero":
            return kept
        target = binary("Mul", fired, self.parameter("reset_value"), f"{role}.target")
        return binary("Add", target, kept, f"{role}.reset")

    def _drops_threshold(self) -> bool:
        threshold = self.arrays.threshold
        return self.habits.drop_unit_threshold and threshold.ndim == 0 and float(threshold) == 1.0

    def _decay(self) -> Operand:
        decay = self.parameter("decay")
        if not self.habits.clip_decay:
            return decay

        def clip() -> str:
            bounds = [literal(0, "clip.low"), literal(1, "clip.high")]
            with self.writer.ahead():
                return self.writer.emit("Clip", [decay, *bounds], "clip")

        return self.writer.once(("clip", self.name), clip)

    def _charge(
        self, drive: str, membrane: Operand, current: Operand | None, wiped: Operand | None
    ) -> tuple[Operand, Operand | None]:
        binary = self.writer.binary
        match self.neuron.charge:
            case "integrate":
                return binary("Add", membrane, drive, "charge"), None
            case "input-decay" | "input-product":
                rest = self.parameter("reset_value")
                shifted = self.neuron.reset == "value" and rest.array.any()
                above = binary("Sub", membrane, rest, "charge.above") if shifted else membrane
                gap = binary("Sub", drive, above, "charge.gap")
                if self.neuron.charge == "input-decay":
                    part = binary("Div", gap, self.parameter("tau"), "charge.part")
                else:
                    rate = Constant(np.asarray(np.float32(1) / self.arrays.tau, np.float32), "rate", "parameter")
                    part = binary("Mul", gap, rate, "charge.part")
                return binary("Add", membrane, part, "charge"), None
            case "leak":
                leaked = binary("Div", membrane, self.parameter("tau"), "charge.leaked")
                left = binary("Sub", membrane, leaked, "charge.left")
                return binary("Add", left, drive, "charge"), None
            case "normalised":
                gain = Constant(np.asarray(np.float32(1) - self.arrays.decay, np.float32), "gain", "parameter")
                scaled = binary("Mul", gain, drive, "charge.scaled")
                kept = binary("Mul", self._decay(), membrane, "charge.kept")
                return binary("Add", kept, scaled, "charge"), None
            case "current":
                assert current is not None
                total = binary("Add", current, drive, "charge.current")
                gap = binary("Sub", literal(0, "leak_value"), membrane, "charge.above")
                gap = binary("Add", gap, total, "charge.gap")
                part = binary("Mul", self.parameter("decay"), gap, "charge.part")
                rate = Constant(-self.arrays.current_decay, "current_rate", "parameter")
                lost = binary("Mul", rate, total, "charge.lost")
                return binary("Add", membrane, part, "charge"), binary("Add", total, lost, "charge.next_current")
            case "synaptic":
                assert current is not None
                kept = binary("Mul", self.parameter("current_decay"), current, "charge.kept_current")
                total = binary("Add", kept, drive, "charge.current")
                if wiped is not None:  # snnTorch subtracts 0 * reset
                    nothing = binary("Mul", wiped, literal(0, "charge.nothing"), "charge.wiped_current")
                    total = binary("Sub", total, nothing, "charge.left_current")
                kept = binary("Mul", self._decay(), membrane, "charge.kept")
                return binary("Add", kept, total, "charge"), total
            case _:
                kept = binary("Mul", self._decay(), membrane, "charge.kept")
                return binary("Add", kept, drive, "charge"), None

    def _counts(self, charged: Operand) -> tuple[Operand, Operand]:
        emit, binary = self.writer.emit, self.writer.binary
        threshold = self.parameter("threshold")
        quotient = charged if self._drops_threshold() else binary("Div", charged, threshold, "fire.quotient")
        positive = emit("Greater", [charged, literal(0, "fire.zero")], "fire.positive")
        if self.habits.truncation == "floor":
            floor = emit("Floor", [emit("Abs", [quotient], "fire.abs")], "fire.floor")
            whole = emit("Mul", [floor, emit("Sign", [quotient], "fire.sign")], "fire.whole")
        else:
            whole = emit("Cast", [emit("Cast", [quotient], "fire.whole", to=7)], "fire.float", to=FLOAT)
        counts = emit("Mul", [emit("Cast", [positive], "fire.mask", to=FLOAT), whole], "fire.counts")
        taken = counts if self._drops_threshold() else emit("Mul", [counts, threshold], "after.amount")
        return counts, binary("Sub", charged, taken, "after.reset")
