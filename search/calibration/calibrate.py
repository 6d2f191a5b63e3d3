"""Measures a device: its kernels on grids of sizes, and reference models, so that other models can be predicted.

In at most a minute on a CPU and two on a GPU. Measurements are taken in random order, so that a slow moment falls on
all alike; what the canary of the clock says is divided out, and some measurements are repeated at the end: what they
differ by is the residual.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from math import log
from typing import Any, NamedTuple

import torch

from archspec.errors import Problem, SpecError
from search.calibration.clock import Clock
from search.calibration.fitting import fitted
from search.calibration.operators import Calls, chosen, curve, executed
from search.calibration.references import workloads
from search.calibration.sizes import Plan, attention, biases, far_attention, far_products, products
from search.calibration.truth import measure
from search.calibration.workload import Workload
from search.cost.devices import Device
from search.cost.measured import DType, Kernels, Measured
from search.cost.setting import DTYPES, PHASES, Phase

STEADY = 0.05  # a canary that moved more is warned of, and a residual that is larger refused
AGAIN = 24  # measurements that are repeated
Progress = Callable[[float, str], None]  # share done, what comes next


class Effort(NamedTuple):
    """How finely a device is measured.

    Attributes:
        dtypes: the one in which reference models are timed as a whole (``whole``) finely, others coarsely.
        most: multiplications of the largest product; of attention an eighth.
        budget: seconds for each kernel.
        scales: by which reference models are wider, and their batches larger.
        lengths: of the reference models whose operators are measured.
    """

    dtypes: Sequence[DType]
    rows: Sequence[int]
    widths: Sequence[int]
    far: Sequence[int]
    tokens: Sequence[int]
    most: float
    budget: float
    scales: Sequence[tuple[int, int]]
    lengths: Sequence[int]
    whole: DType


CPU = Effort(
    ("float32", "bfloat16"), (1, 8, 32, 128, 512, 2048), (64, 256, 1024, 4096),
    (2**20, 2**22, 2**24, 2**25, 2**26, 2**28), (32, 128, 512, 2048), 2**30, 0.02, ((1, 1),), (32, 512), "float32",
)  # fmt: skip
CUDA = Effort(
    ("float32", "bfloat16"), (1, 16, 128, 1024, 8192), (64, 256, 1024, 4096, 16384), (2**24, 2**26, 2**28, 2**30),
    (32, 128, 512, 2048, 8192), 2**40, 0.01, ((1, 1), (4, 16)), (32, 512), "bfloat16",
)  # fmt: skip


def calibrate(
    base: Device, device: str, *, progress: Progress, fingerprint: dict[str, Any],
    counter: Callable[[], float] = time.perf_counter, steady: float = STEADY,
) -> Device:  # fmt: skip
    """The profile of a device with all that was measured of it.

    Args:
        base: its profile without.
        counter: as of `search.calibration.clock.Clock`.
        steady: the largest residual that is trusted.

    Errors:
        SpecError: the machine is too loaded to be trusted.
    """
    effort = CUDA if torch.device(device).type == "cuda" else CPU
    clock = Clock(device, counter=counter)
    with torch.no_grad():
        kernels = _kernels(effort, clock, device, progress)
    residual, kernels_by_dtype = kernels
    if residual > steady:
        cause = f"measured again, kernels differ by {residual:.0%}: this machine is too loaded to be trusted"
        raise SpecError(Problem(cause, "try again when nothing else runs; the old profile is kept"))
    measured = Measured(
        kernels=kernels_by_dtype, drift=round(clock.drift, 4), residual=round(residual, 4),
        date=datetime.now(UTC).isoformat(timespec="seconds"), fingerprint=fingerprint,
    )  # fmt: skip
    profile = base.model_copy(update={"measured": measured})
    truths = []
    for number, phase in enumerate(PHASES):
        progress(0.7 + 0.1 * number, f"reference models: {phase}")
        for workload in references(effort, phase, effort.whole):
            truths.append(measure([workload], clock, budget=0.2)[0])
    whole = {phase: fitted([truth for truth in truths if truth.phase == phase], profile) for phase in PHASES}
    progress(1.0, "done")
    return profile.model_copy(update={"measured": measured.model_copy(update={"whole": whole})})


def _kernels(effort: Effort, clock: Clock, device: str, progress: Progress) -> tuple[float, dict[DType, Kernels]]:
    plans: dict[tuple[DType, str], Plan] = {}
    for name in effort.dtypes:
        dtype, coarse = DTYPES[name], 1 if name == effort.whole else 2
        tokens, widths = effort.tokens[::coarse], (32, 64, 128)[::coarse]
        shapes = {"m": effort.rows[::coarse], "k": effort.widths[coarse - 1 :], "n": effort.widths[coarse - 1 :]}
        one = {"queries": tokens, "keys": tokens, "width": widths}
        plans[name, "products"] = products(dtype, device, shapes, effort.most)
        plans[name, "far"] = far_products(dtype, device, effort.rows[:4], effort.far)
        plans[name, "attention"] = attention(dtype, device, one, effort.most / 8, heads=HEADS, causal=False)
        plans[name, "decoding"] = attention(
            dtype, device, {"queries": FEW, "keys": tokens, "width": widths}, effort.most, heads=HEADS, causal=False,
            kept=True,
        )  # fmt: skip
        plans[name, "far_kept"] = far_attention(dtype, device, effort.far)
        plans[name, "bias"] = biases(dtype, device, effort.rows, effort.widths[::2])
        plans[name, "causal"] = attention(dtype, device, one, effort.most / 8, heads=HEADS, causal=True)
    points = [(plan, point) for plan in plans.values() for point in plan.points()]
    order = random.Random(0)
    order.shuffle(points)
    for number, (plan, point) in enumerate(points):
        if number % 20 == 0:
            progress(0.4 * number / len(points), "products and attention")
        plan.measure(clock, point, effort.budget)
    progress(0.4, "operators of the reference models")
    calls = {name: _calls(effort, name, device) for name in effort.dtypes}
    every = [(name, operator, size) for name in calls for operator, sizes in calls[name].items() for size in sizes]
    order.shuffle(every)
    timed: dict[tuple[DType, str], dict[int, Any]] = {}
    for number, (name, operator, size) in enumerate(every):
        if number % 20 == 0:
            progress(0.5 + 0.2 * number / len(every), "operators of the reference models")
        call = calls[name][operator][size].ready(device, size)
        timed.setdefault((name, operator), {})[size] = clock.kernel(call, budget=effort.budget / 2)
    residual = _again(points, clock, order, effort.budget)
    found: dict[DType, Kernels] = {}
    for name in effort.dtypes:
        operators = {op: curve(times, clock) for (dtype, op), times in timed.items() if dtype == name}
        grids = {kind: plan.grid(clock) for (dtype, kind), plan in plans.items() if dtype == name}
        found[name] = Kernels(**grids, heads=HEADS, operators=operators)
    return residual, found


HEADS = 8
FEW = (1, 4, 16)  # queries of one decoded token, whose heads share keys


def references(effort: Effort, phase: Phase, dtype: DType) -> Iterator[Workload]:
    """The reference workloads of a phase at all scales."""
    for scale, batch in effort.scales:
        yield from workloads(phase, dtype, scale=scale, batch=batch)


def _calls(effort: Effort, dtype: DType, device: str) -> Calls:
    """The operators that reference models execute."""
    found = []
    seen = set()
    for phase in PHASES if dtype == effort.whole else PHASES[:1]:
        for workload in references(effort, phase, dtype):
            lengths = effort.lengths if workload.length is not None and phase != "decode" else (workload.length,)
            for length in lengths:
                key = (workload.spec.name, phase, length, workload.batch)
                if key not in seen:
                    seen.add(key)
                    with torch.enable_grad():
                        run = replace(workload, length=length).ready(device)
                        found.append(executed(run))
    return chosen(found)


def _again(points: Iterable[tuple[Plan, Any]], clock: Clock, order: random.Random, budget: float) -> float:
    """How far measurements that are taken again differ, in the median, once the canary is divided out."""
    some = order.sample(list(points), AGAIN)
    apart = []
    for plan, point in some:
        before = clock.corrected(plan.timed[point])
        plan.measure(clock, point, budget)
        apart.append(abs(log(clock.corrected(plan.timed[point]) / before)))
    return statistics.median(apart)
