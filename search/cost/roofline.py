"""Latency of an operator table on a device by the roofline model.

Williams, Waterman, Patterson 2009, "Roofline: An Insightful Visual Performance Model for Multicore Architectures",
doi 10.1145/1498765.1498785. Each operator takes the longer of its arithmetic and its traffic, and a fixed overhead:

    time = overhead + max(flops / peak(dtype), traffic)

Activations were just written, so they come from the nearest level that holds what the operator touches; weights come
from the nearest level that holds all weights of the pass, since the others went by in between. With datasheet peaks the
result is a lower bound that ranks models well; the measured profile ``local`` is near the truth.
"""

from __future__ import annotations

from collections.abc import Sequence

from search.cost.block import Operator
from search.cost.devices import Device


def latency(table: Sequence[Operator], device: Device) -> float:
    """Seconds that a device needs for all operators of a table, one after the other.

    Errors:
        SpecError: the device states no peak for a dtype in which the table multiplies.
    """
    resident = weights_per_pass(table)
    return sum(operator_latency(row, device, resident) * row.count for row in table)


def femtoseconds(table: Sequence[Operator], device: Device, resident: int) -> int:
    """The same as a whole number, for a table that is part of a pass which reads `resident` bytes of weights.

    Whole numbers add up to the same sum in any order.
    """
    return sum(round(operator_latency(row, device, resident) * 1e15) * row.count for row in table)


def operator_latency(row: Operator, device: Device, resident: int) -> float:
    """Seconds of one execution of an operator, in a pass that reads `resident` bytes of weights."""
    arithmetic = row.flops / device.peak_flops(row.dtype) if row.flops else 0.0
    touched = row.read + row.written
    traffic = (touched - row.weights) / device.bandwidth(touched)
    if row.weights:
        traffic += row.weights / device.bandwidth(max(resident, touched))
    return device.overhead + max(arithmetic, traffic)


def weights_per_pass(table: Sequence[Operator]) -> int:
    """Bytes of weights that a forward or a backward pass reads, whichever reads more."""
    passes = {"forward": 0, "backward": 0}
    for row in table:
        passes[row.phase] += row.weights * row.count
    return max(passes.values())
