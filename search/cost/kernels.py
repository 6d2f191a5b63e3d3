"""How long a device takes for one operator: as measured where its kernels were, by the roofline otherwise.

Roofline (Williams, Waterman, Patterson 2009, doi 10.1145/1498765.1498785): the longer of arithmetic and traffic,

    busy = max(flops / peak(dtype), traffic)

with what 10,000 language models on two GPUs and a CPU (`benchmarks.hwgpt`) ask for beyond it: a product's arithmetic
and traffic add up, since its first loads and last stores hide behind nothing; softmax is done on vector units; a kernel
of a GPU takes as long to start as to be asked for, and where it only moves bytes reaches half of the bandwidth.
Activations were just written, so they come from the nearest level of memory that holds what the operator touches;
weights, and what decoding kept, come from the nearest that holds all that the pass reads of them, since the rest went
by in between. With datasheet peaks this is near a lower bound.

Measured (`archc calibrate`): products and attention from grids of their sizes, other operators from curves of their
bytes, each read between its points; weights are slower by what a far working set was seen to cost. Factors for kinds of
work, fitted to whole models, correct both forms.

Beside the time that the device is busy, an operator takes time to be asked for. A CPU spends one after the other; a GPU
works while it is asked, so that a pass takes the longer of the two sums.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from search.cost.block import Operator
    from search.cost.devices import Device
    from search.cost.grid import Grid
    from search.cost.measured import Kernels
    from search.cost.setting import Phase

APART = "/apart"  # ends the name of a curve of an operator whose tensors do not lie alike
VIEW = 0.3  # what a view takes to be asked for, as a share of an operator
Origin = Literal["calibrated", "roofline", "bytes"]


class Time(NamedTuple):
    """Seconds of one execution: of the device, of whoever asks, and where the first comes from.

    Attributes:
        start: of `busy`, what the kernel takes to begin; 0 where it was measured as one.
    """

    busy: float
    host: float
    origin: Origin
    start: float = 0.0


def operator_time(row: Operator, device: Device, resident: float, phase: Phase = "prefill") -> Time:
    """The time of an operator in a pass that reads `resident` bytes of weights and of what was kept.

    Errors:
        SpecError: the device states no peak for a dtype in which it multiplies.
    """
    measured = device.measured
    host = device.overhead * (VIEW if row.work == "view" else 1.0)
    if row.work == "view":
        return Time(0.0, host * device.factor(phase, "host"), "calibrated" if measured else "roofline")
    origin: Origin = "roofline" if row.priced else "bytes"
    busy, start = None, 0.0
    if measured is not None:
        kernels = measured.kernels.get(row.dtype)  # type: ignore[call-overload]
        busy = _from_grids(row, kernels, device, resident) if kernels else None
    if busy is None:
        start, busy = _roofline(row, device, resident)
        start *= device.factor(phase, "start")
    else:
        origin = "calibrated"
        host = host * VIEW if device.kind == "cpu" else host  # of a CPU the grids have the rest
    busy = busy * device.factor(phase, row.work) + start
    return Time(busy, host * device.factor(phase, "host"), origin, start)


SOFTMAX = 30  # operations on vector units for each score of attention: scaling, maxima, exponentials, sums
STREAMED = 0.5  # of a GPU's bandwidth, by kernels that only move what they touch


class Roof(NamedTuple):
    """Seconds of an operator by the profile alone: to start, of its arithmetic, of its traffic."""

    start: float
    arithmetic: float
    traffic: float


def roof(row: Operator, device: Device, resident: float) -> Roof:
    """What the profile says of an operator in a pass that reads `resident` bytes of weights and of what was kept.

    Errors:
        SpecError: the device states no peak for a dtype in which it multiplies.
    """
    arithmetic = row.flops / device.peak_flops(row.dtype) if row.flops else 0.0
    touched = row.read + row.written
    traffic = (touched - row.weights) / device.bandwidth(touched)
    if row.weights:
        traffic += row.weights / device.bandwidth(max(resident, touched))
    if row.work == "attention":
        scores = prod(row.shape[:3]) * row.flops / (4 * prod(row.shape[:4]))
        arithmetic += SOFTMAX * scores / device.peak.get("float32", device.peak_flops(row.dtype))
    elif row.work != "product" and device.kind == "gpu":
        traffic /= STREAMED
    return Roof(device.overhead if device.kind == "gpu" else 0.0, arithmetic, traffic)


def _roofline(row: Operator, device: Device, resident: float) -> tuple[float, float]:
    """Seconds to start, and of the rest."""
    start, arithmetic, traffic = roof(row, device, resident)
    return start, arithmetic + traffic if row.work == "product" else max(arithmetic, traffic)


def _from_grids(row: Operator, kernels: Kernels, device: Device, resident: float) -> float | None:
    touched = row.read + row.written
    if row.work in ("product", "convolution") and row.shape[3] > 1 and kernels.products is not None:
        groups, m, k, n = row.shape
        if device.kind == "cpu":
            seconds = _several(kernels.products, groups, m, k, n)
        else:  # all groups at once, as far as their matrices arrive in time
            seconds = kernels.products.at(groups * m, k, n).seconds
            seconds = max(seconds, touched / device.bandwidth(touched)) if groups > 1 else seconds
        seconds *= row.flops / (2 * prod(row.shape))
        bias = _bias(kernels, groups * m, n) if row.name in BIASED else 0.0
        return seconds + groups * _far(kernels, "products", row, resident, m, k, n) + bias
    if row.work == "attention":
        grid = kernels.causal if row.shape[4] and kernels.causal is not None else kernels.attention
        if row.weights and kernels.decoding is not None:
            grid = kernels.decoding
        if grid is None:
            return None
        heads, queries, keys, width, _ = row.shape
        seconds = _several(grid, heads / kernels.heads, queries, keys, width)
        seconds *= row.flops / (4 * prod(row.shape[:4]))  # backward does more
        return seconds + heads / kernels.heads * _far(kernels, "decoding", row, resident, queries, keys, width)
    apart = APART * (row.shape == (1,))
    curve = kernels.operators.get(row.name + apart) or kernels.operators.get(row.name)
    if curve is None:
        return None
    largest = curve.axes["bytes"][-1]
    if device.kind == "cpu" or touched <= largest:
        return curve.at(touched).seconds
    # what a GPU needs for more than was measured is that much more traffic, not as many times as much waiting
    return curve.seconds[-1] + (touched - largest) / (STREAMED * device.bandwidth(touched))


LEAST = 0.05  # of a small kernel's time is not its start


def _several(grid: Grid, count: float, *point: float) -> float:
    """Seconds of one kernel that does what so many do of which the grid tells the time of each."""
    each = grid.at(*point).seconds
    return each + (count - 1) * max(each - min(grid.seconds), each * LEAST)


def _far(
    kernels: Kernels, what: Literal["products", "decoding"], row: Operator, resident: float, *point: float
) -> float:
    """Seconds that one kernel takes longer since its weights, or what was kept, went by among `resident` bytes.

    Loading them takes as long however many rows meet them: beyond the rows that were measured it stays.
    """
    near = kernels.products if what == "products" else kernels.decoding
    far = kernels.far_products if what == "products" else kernels.far_decoding
    if not row.weights or near is None or far is None or kernels.reach is None:
        return 0.0
    rows = min(point[0], next(iter(far.axes.values()))[-1])
    longer = far.at(rows, *point[1:]).seconds - near.at(rows, *point[1:]).seconds
    first, last, here = kernels.reach.seconds[0], kernels.reach.seconds[-1], kernels.reach.at(resident).seconds
    share = (here - first) / (last - first) if last > first and resident < kernels.reach.axes["bytes"][-1] else 1.0
    return max(0.0, longer) * min(1.0, max(0.0, share))


def _bias(kernels: Kernels, m: float, n: float) -> float:
    """What a bias adds to a product."""
    assert kernels.products is not None
    if kernels.bias is None:
        return 0.0
    return max(0.0, kernels.bias.at(m, n).seconds - kernels.products.at(m, 64, n).seconds)


BIASED = ("aten.addmm", "aten.baddbmm")


class Sum(NamedTuple):
    """Femtoseconds of a table: whole numbers, which add up to the same sum in any order.

    Attributes:
        busy: for each of the device's working sets (`Device.working_sets`).
        host: to be asked for.
    """

    busy: tuple[int, ...]
    host: int


def summed(table: Iterable[Operator], device: Device, phase: Phase = "prefill") -> Sum:
    """The time of a table, part of a pass of that phase whose weights are each of the device's working sets."""
    sets = device.working_sets
    busy, host = [0] * len(sets), 0
    for row in table:
        here: Time | None = None
        for number, resident in enumerate(sets):
            if here is None or row.weights:
                here = operator_time(row, device, resident, phase)
            busy[number] += round(here.busy * 1e15) * row.count
        assert here is not None
        host += round(here.host * 1e15) * row.count
    return Sum(tuple(busy), host)


def weights_per_pass(table: Sequence[Operator]) -> int:
    """Bytes of weights that a forward or a backward pass reads, whichever reads more."""
    passes = {"forward": 0, "backward": 0}
    for row in table:
        passes[row.phase] += row.weights * row.count
    return max(passes.values())
