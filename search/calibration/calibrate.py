"""Measures a device: its kernels on grids of sizes, and reference models, so that other models can be predicted.

In at most a minute on a CPU and two on a GPU. All kernels are measured in random order, so that a slow moment falls on
all alike, and then in another order again; what the canary of the clock says is divided out. How far the two times of a
kernel then lie from their mean is the residual, in the median of all kernels.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from math import log
from typing import Any, NamedTuple

import torch

from archspec.errors import Problem, SpecError
from search.calibration.clock import Clock, Timed
from search.calibration.fitting import fitted
from search.calibration.operators import Calls, chosen, curve, executed
from search.calibration.references import workloads as reference_workloads
from search.calibration.sizes import Plan, Pool, attention, biases, products, reach
from search.calibration.truth import Truth, measure
from search.calibration.workload import Workload
from search.cost.devices import Device
from search.cost.measured import DType, Kernels, Measured
from search.cost.setting import DTYPES, PHASES, Phase

STEADY = 0.05  # a canary that moved more is warned of, and a residual that is larger refused
PASSES = 2  # through all kernels
Progress = Callable[[float, str], None]  # share done, what comes next


class Effort(NamedTuple):
    """How finely a device is measured.

    Attributes:
        dtypes: the one in which reference models are timed as a whole (``whole``) finely, others coarsely.
        most: multiplications of the largest product; of attention an eighth.
        budget: seconds for each kernel.
        scales: by which reference models are wider, and their batches larger.
        lengths: of the reference models whose operators are measured; of wider ones the last.
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
    ("float32", "bfloat16"), (1, 8, 32, 128, 512, 2048), (64, 192, 768, 3072),
    (2**20, 2**22, 2**24, 2**25, 2**26, 2**28), (32, 128, 512, 2048), 2**29, 0.008, ((1, 1),), (32, 512), "float32",
)  # fmt: skip
CUDA = Effort(
    ("float32", "bfloat16"), (1, 16, 128, 1024, 8192), (64, 256, 1024, 4096, 16384), (2**24, 2**26, 2**28, 2**30),
    (32, 128, 512, 2048, 8192), 2**40, 0.007, ((1, 1), (4, 16)), (32, 512), "bfloat16",
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
        cause = f"measured twice, kernels lie {residual:.0%} from their mean: this machine is too loaded to be trusted"
        raise SpecError(Problem(cause, "try again when nothing else runs; the old profile is kept"))
    measured = Measured(
        kernels=kernels_by_dtype, canary=clock.canary, drift=round(clock.drift, 4), residual=round(residual, 4),
        date=datetime.now(UTC).isoformat(timespec="seconds"), fingerprint=fingerprint,
    )  # fmt: skip
    profile = base.model_copy(update={"measured": measured})
    truths: list[Truth] = []
    for number, phase in enumerate(PHASES):
        progress(0.7 + 0.1 * number, f"reference models: {phase}")
        workloads = list(references(effort, phase, effort.whole))
        for some in [workloads] if not clock.cuda else [[one] for one in workloads]:  # a GPU may not hold them all
            truths += measure(some, clock, rounds=PASSES, budget=0.2 / PASSES)
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
        pool = Pool(effort.far[-1], dtype, device)
        few = {"queries": FEW, "keys": tokens, "width": widths}
        plans[name, "far_products"] = products(dtype, device, shapes | {"m": effort.rows[:4]}, effort.most, pool)
        plans[name, "reach"] = reach(dtype, device, effort.far)
        plans[name, "attention"] = attention(dtype, device, one, effort.most / 8, heads=HEADS)
        plans[name, "decoding"] = attention(dtype, device, few, effort.most, heads=HEADS, kept=True)
        plans[name, "far_decoding"] = attention(dtype, device, few, effort.most, heads=HEADS, kept=True, pool=pool)
        plans[name, "bias"] = biases(dtype, device, effort.rows, effort.widths[::2])
        plans[name, "causal"] = attention(dtype, device, one, effort.most / 8, heads=HEADS, causal=True)
    progress(0.0, "operators of the reference models")
    calls = {name: _calls(effort, name, device) for name in effort.dtypes}
    jobs: dict[Any, tuple[Callable[[], Callable[[], Any]], float]] = {}
    for kind, plan in plans.items():
        jobs |= {(kind, point): (partial(plan.call, *point), effort.budget) for point in plan.points()}
    for name, operators in calls.items():
        for operator, sizes in operators.items():
            for size, call in sizes.items():
                jobs[name, operator, size] = partial(call.ready, device, size), effort.budget / 2
    taken = _taken(jobs, clock, progress)
    seconds = {job: clock.together(times) for job, times in taken.items()}
    apart = [abs(log(clock.corrected(a) / clock.corrected(b))) / 2 for a, b in taken.values()]
    found: dict[DType, Kernels] = {}
    for name in effort.dtypes:
        curves = {
            operator: curve({size: seconds[name, operator, size] for size in sizes})
            for operator, sizes in calls[name].items()
        }
        grids = {
            kind: plan.grid({point: seconds[(dtype, kind), point] for point in plan.points()})
            for (dtype, kind), plan in plans.items()
            if dtype == name
        }
        found[name] = Kernels(**grids, heads=HEADS, operators=curves)
    return statistics.median(apart), found


def _taken(
    jobs: Mapping[Any, tuple[Callable[[], Callable[[], Any]], float]], clock: Clock, progress: Progress
) -> dict[Any, list[Timed]]:
    """Each job's times, one from each pass through all of them in random order."""
    taken: dict[Any, list[Timed]] = {job: [] for job in jobs}
    order, number = random.Random(0), 0
    for _ in range(PASSES):
        for job in order.sample(list(jobs), len(jobs)):
            if number % 20 == 0:
                progress(0.2 + 0.5 * number / (PASSES * len(jobs)), "kernels")
            make, budget = jobs[job]
            taken[job].append(clock.kernel(make(), budget=budget / PASSES, least=3))
            number += 1
    return taken


HEADS = 8
FEW = (1, 4, 16)  # queries of one decoded token, whose heads share keys


def references(effort: Effort, phase: Phase, dtype: DType) -> Iterator[Workload]:
    """The reference workloads of a phase at all scales."""
    for scale, batch in effort.scales:
        yield from reference_workloads(phase, dtype, scale=scale, batch=batch)


def _calls(effort: Effort, dtype: DType, device: str) -> Calls:
    """The operators that reference models execute."""
    found = []
    with torch.enable_grad():
        for workload in _distinct(effort, dtype):
            found.append(executed(workload.ready(device)))
    return chosen(found)


def _distinct(effort: Effort, dtype: DType) -> Iterator[Workload]:
    """One reference workload of each family, phase, length and batch."""
    found: dict[Any, Workload] = {}
    for phase in PHASES if dtype == effort.whole else PHASES[:1]:
        for scale, batch in effort.scales:
            lengths = effort.lengths if scale == 1 else effort.lengths[-1:]
            for workload in reference_workloads(phase, dtype, scale=scale, batch=batch):
                own = workload.length is None or phase == "decode"
                for length in (workload.length,) if own else lengths:
                    key = workload.spec.name, phase, length, workload.batch
                    found.setdefault(key, replace(workload, length=length))
    yield from found.values()
