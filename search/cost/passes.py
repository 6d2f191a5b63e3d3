"""Passes through a model: prefill, a decoded token, a training step; which steps they take, and how long these are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from search.cost.block import Table
from search.cost.kernels import operator_time, weights_per_pass
from search.cost.setting import Setting
from search.cost.steps import Step, Steps

WORKS = ("product", "attention", "convolution", "traffic", "start")  # that a device is busy with
CLASSES = (*WORKS, "host")


class PassTime(NamedTuple):
    """Femtoseconds of a pass or a part of one.

    Attributes:
        busy: of the device, for each of its working sets (`search.cost.devices.Device.working_sets`).
        host: to be asked for.
        resident: bytes of weights, and of what was kept, that it reads.
    """

    busy: tuple[int, ...]
    host: int
    resident: int


def owned(work: Iterable[Step]) -> list[Step]:
    """The steps whose weights no earlier step has."""
    return list({step.weights: step for step in reversed(list(work))}.values())[::-1]


def taking_part(work: Steps, setting: Setting) -> list[Step]:
    """The steps of a setting's phase, the optimizer's left out."""
    if setting.phase == "step":
        return [*work.steps, *([work.loss] if work.loss else [])]
    return [step for step in work.steps if not (step.training or step.once)]


def tables(work: Steps, setting: Setting) -> Iterator[tuple[Step, Table]]:
    """What each step executes in a setting's phase; the optimizer's work follows as that of the weights' steps."""
    training = setting.phase == "step"
    for step in taking_part(work, setting):
        yield step, step.unit.cost.training if training else step.unit.cost.inference
    if training:
        for step in owned(work.steps):
            yield step, step.unit.update(setting)


def pass_time(work: Steps, setting: Setting) -> PassTime:
    """How long some steps take in a setting's phase."""
    training = setting.phase == "step"
    members = taking_part(work, setting)
    times = [step.unit.time(setting) for step in members]
    if training:
        times += [step.unit.update_time(setting) for step in owned(work.steps)]
    busy = [0] * len(setting.device.working_sets)
    for time in times:
        for number, femtoseconds in enumerate(time.busy):
            busy[number] += femtoseconds
    costs = (step.unit.cost for step in members)
    resident = sum(weights_per_pass(cost.training if training else cost.inference) for cost in costs)
    return PassTime(tuple(busy), sum(time.host for time in times), resident)


def seconds(time: PassTime, setting: Setting) -> float:
    """How long the whole pass takes."""
    device = setting.device
    at, share = device.between(time.resident)
    busy = time.busy[at]
    if share:
        busy += round(share * (time.busy[at + 1] - busy))
    return device.pass_seconds(setting.phase, float(busy) / 1e15, float(time.host) / 1e15)


def seconds_by_work(work: Steps, setting: Setting) -> dict[str, float]:
    """How long a pass is busy with each kind of work, and how long it takes to be asked for (``host``)."""
    resident = pass_time(work, setting).resident
    total = dict.fromkeys(CLASSES, 0.0)
    for _, table in tables(work, setting):
        for name, took in table_by_work(table, setting, resident).items():
            total[name] += took
    return total


def table_by_work(table: Table, setting: Setting, resident: float) -> dict[str, float]:
    """The same of a table, part of a pass that reads `resident` bytes of weights and of what was kept."""
    device, phase = setting.device, setting.phase
    at, share = device.between(resident)
    sets = device.working_sets
    near, far = sets[at], sets[min(at + 1, len(sets) - 1)]
    total = dict.fromkeys(CLASSES, 0.0)
    for row in table:
        time = operator_time(row, device, near, phase)
        busy = time.busy
        if share and row.weights:
            busy += share * (operator_time(row, device, far, phase).busy - busy)
        if row.work != "view":
            total[row.work] += (busy - time.start) * row.count
        total["start"] += time.start * row.count
        total["host"] += time.host * row.count
    return total
