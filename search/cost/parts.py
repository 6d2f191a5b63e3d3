"""A pass taken apart: what its rows and its classes of operators cost, what bounds them, and how sure the whole is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from operator import add
from typing import Literal, NamedTuple

from archspec.spec import Spec
from search.cost.block import BlockCost, Operator, Table
from search.cost.devices import Device
from search.cost.interval import Interval, interval
from search.cost.kernels import Origin, operator_time, roof
from search.cost.passes import owned, pass_time, seconds, taking_part
from search.cost.setting import Phase, Setting
from search.cost.steps import Place, Steps
from search.cost.unit import Unit

Verdict = Literal["compute", "memory", "overhead"]
ORIGINS: tuple[Origin, ...] = ("calibrated", "roofline", "bytes")
OPTIMIZER, LOSS = ("optimizer",), ("loss",)


@dataclass(frozen=True)
class Part:
    """A part of a pass.

    Attributes:
        kind: of the node, or of the operators' kernels.
        count: operators that are executed.
        bytes: read and written.
        seconds: of the pass; ``share`` of it.
        verdict: which takes longest: arithmetic, traffic, or being asked for and started.
    """

    name: str
    kind: str
    count: int
    flops: int
    bytes: int
    seconds: float
    share: float
    verdict: Verdict

    @property
    def intensity(self) -> float:
        """FLOPs for each byte."""
        return self.flops / self.bytes if self.bytes else 0.0


@dataclass(frozen=True)
class Pass:
    """What a pass costs.

    Attributes:
        forward, backward: FLOPs.
        bytes: read and written by all operators.
        constant: seconds that a pass takes beyond its parts.
        interval: by what the seconds are multiplied to bound what is measured.
        origins: shares of the time that the device is busy: calibrated, from the roofline, or from bytes alone.
        utilisation: what the profile says that the pass takes at least, over what it takes.
        watts: the mean power that follows, as an estimate; None if the profile states none.
        unknown: operators that nobody knows.
    """

    phase: Phase
    seconds: float
    constant: float
    forward: int
    backward: int
    bytes: int
    interval: Interval
    origins: Mapping[Origin, float]
    utilisation: float
    watts: float | None
    unknown: tuple[str, ...]
    rows: tuple[Part, ...] = field(repr=False)
    operators: tuple[Part, ...] = field(repr=False)

    @property
    def flops(self) -> int:
        """FLOPs of products, forward and backward."""
        return self.forward + self.backward

    @property
    def intensity(self) -> float:
        """FLOPs for each byte."""
        return self.flops / self.bytes if self.bytes else 0.0

    @property
    def energy(self) -> float | None:
        """Joules, as an estimate."""
        return None if self.watts is None else self.seconds * self.watts


class _Sums(NamedTuple):
    """Of some operators; times are seconds, the last three weigh where they come from."""

    executed: float = 0
    forward: float = 0
    backward: float = 0
    bytes: float = 0
    busy: float = 0
    host: float = 0
    start: float = 0
    arithmetic: float = 0
    traffic: float = 0
    calibrated: float = 0
    roofline: float = 0
    guessed: float = 0


def take_apart(spec: Spec, work: Steps, under: Setting) -> Pass:
    """A pass of the setting's phase through the steps of a spec."""
    device = under.device
    measured = device.measured
    time = seconds(pass_time(work, under), under)
    constant = measured.of(under.phase).constant if measured else 0.0
    rows: dict[Place, _Sums] = {}
    classes: dict[tuple[str, str], _Sums] = {}
    unknown: set[str] = set()
    for row, sums_of in _worked(work, under, unknown):
        for key, sums in sums_of.items():
            rows[row] = _added(rows.get(row, _Sums()), sums)
            classes[key] = _added(classes.get(key, _Sums()), sums)
    total = _Sums(*map(sum, zip(*rows.values(), strict=True)))
    asked = total.host > total.busy  # longer than a GPU works, which it does meanwhile

    def weight(sums: _Sums) -> float:
        return sums.busy + sums.host if device.kind == "cpu" else sums.host if asked else sums.busy

    def part(name: str, kind: str, sums: _Sums) -> Part:
        mine = (time - constant) * weight(sums) / (weight(total) or 1.0)
        flops = int(sums.forward + sums.backward)
        return Part(name, kind, int(sums.executed), flops, int(sums.bytes), mine, mine / (time or 1.0), _verdict(sums))

    origins = dict(zip(ORIGINS, (total.calibrated, total.roofline, total.guessed), strict=True))
    shares = {origin: weight / (sum(origins.values()) or 1.0) for origin, weight in origins.items()}
    utilisation = min(1.0, _least(work, under) / (time or 1.0))
    power = device.power
    return Pass(
        phase=under.phase,
        seconds=time,
        constant=constant,
        forward=int(total.forward),
        backward=int(total.backward),
        bytes=int(total.bytes),
        interval=interval(device, under.phase, shares["calibrated"]),
        origins=shares,
        utilisation=utilisation,
        watts=power.idle + (power.full - power.idle) * utilisation if power else None,
        unknown=tuple(sorted(unknown)),
        rows=tuple(part(".".join(row), _kind(spec, row), sums) for row, sums in rows.items()),
        operators=tuple(sorted((part(*key, sums) for key, sums in classes.items()), key=lambda one: -one.seconds)),
    )


def _worked(work: Steps, under: Setting, unknown: set[str]) -> Iterator[tuple[Place, Mapping[tuple[str, str], _Sums]]]:
    """What each step does, by name and kind of its operators; the optimizer's steps follow."""
    resident = pass_time(work, under).resident
    known: dict[tuple[int, str], dict[tuple[str, str], _Sums]] = {}

    def sums(unit: Unit, what: str, table: Callable[[], Table]) -> dict[tuple[str, str], _Sums]:
        key = id(unit), what
        if key not in known:
            found = known[key] = {}
            for row in table():
                if not row.priced:
                    unknown.add(row.name)
                name = row.name, row.work
                found[name] = _added(found.get(name, _Sums()), _one(row, under, resident))
        return known[key]

    training = under.phase == "step"
    for step in taking_part(work, under):
        cost = step.unit.cost
        yield step.row, sums(step.unit, "pass", partial(_table, cost, training))
    for step in owned(work.steps) if training else ():
        yield OPTIMIZER, sums(step.unit, "update", partial(step.unit.update, under))


def _table(cost: BlockCost, training: bool) -> Table:
    return cost.training if training else cost.inference


def _one(row: Operator, under: Setting, resident: float) -> _Sums:
    device = under.device
    at, share = device.between(resident)
    near, far = device.working_sets[at], device.working_sets[min(at + 1, len(device.working_sets) - 1)]
    time = operator_time(row, device, near, under.phase)
    busy = time.busy
    if share and row.weights:
        busy += share * (operator_time(row, device, far, under.phase).busy - busy)
    start, arithmetic, traffic = (0.0, 0.0, 0.0) if row.work == "view" else roof(row, device, resident)
    forward = row.flops if row.phase == "forward" else 0
    origins = dict.fromkeys(ORIGINS, 0.0) | {time.origin: busy}
    once = (1, forward, row.flops - forward, row.read + row.written, busy, time.host, start, arithmetic, traffic)
    return _Sums(*(row.count * number for number in (*once, *origins.values())))


def _added(one: _Sums, other: _Sums) -> _Sums:
    return _Sums(*map(add, one, other))


def _verdict(sums: _Sums) -> Verdict:
    if max(sums.host, sums.start) >= sums.busy - sums.start:
        return "overhead"
    return "compute" if sums.arithmetic >= sums.traffic else "memory"


def _least(work: Steps, under: Setting) -> float:
    """Seconds that a pass takes by the profile alone, if nothing had to be asked for."""
    bare = Device.model_validate(under.device.model_dump(exclude={"measured"}) | {"overhead": 0.0})
    setting = under._replace(device=bare, name=f"{under.name}, at its roof")
    return seconds(pass_time(work, setting), setting)


def _kind(spec: Spec, row: Place) -> str:
    if row == OPTIMIZER:
        return "adamw"
    return "cross_entropy" if row == LOSS else spec.graph.node(row[0]).kind.name_
