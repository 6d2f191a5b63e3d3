"""How sure a predicted latency is: the factors between which the measured one lies, in nine of ten cases.

A calibrated device knows how far off it was on models that it had not seen (`search.cost.measured.Whole.errors`). Their
order statistic is a conformal interval (Vovk, Gammerman, Shafer 2005, "Algorithmic Learning in a Random World"): of n
errors the ``ceil(0.9 (n + 1))``-th smallest bounds the next one with probability 0.9, if it comes from models
of the same kind. Fewer than nine errors promise nothing of the sort; the rest is then assumed, as it is for a profile
alone and for work whose kernels were never measured.
"""

from __future__ import annotations

from math import ceil, exp, log, log1p, sqrt
from typing import NamedTuple

from search.cost.devices import Device
from search.cost.kernels import operator_time
from search.cost.passes import pass_time, tables
from search.cost.setting import Phase, Setting
from search.cost.steps import Steps

COVERAGE = 0.9
ASSUMED = (0.7, 3.0)  # measured over predicted, of a profile alone: a roofline is nearly a lower bound
ENOUGH = 9  # errors, of which the largest bounds the next with COVERAGE
_SPREAD = log(sqrt(ASSUMED[1] / ASSUMED[0]))  # the same band around what was fitted


class Interval(NamedTuple):
    """By what a predicted latency is multiplied to bound the measured one."""

    low: float
    high: float


def interval(device: Device, phase: Phase, covered_share: float) -> Interval:
    """The interval of a prediction.

    Args:
        covered_share: of the time, by operators whose kernels were measured (`covered`); of a device of which no kernel
            was, but whole models (`archc calibrate --from`), it says nothing and is not looked at.
    """
    measured = device.measured
    if measured is None or not (measured.kernels or measured.whole):
        return Interval(*ASSUMED)
    errors = measured.whole[phase].errors if phase in measured.whole else ()
    apart = sorted(abs(log1p(max(error, -0.99))) for error in errors)
    if len(apart) >= ENOUGH:
        half = apart[ceil(COVERAGE * (len(apart) + 1) - 1e-9) - 1]
    else:
        known = len(apart) / ENOUGH
        half = known * max(apart, default=0.0) + (1 - known) * _SPREAD
    share = covered_share if measured.kernels else 1.0
    low, high = (share * exp(sign * half) + (1 - share) * other for sign, other in zip((-1, 1), ASSUMED, strict=True))
    return Interval(low, high)


def covered(work: Steps, setting: Setting) -> float:
    """The share of the time that a device is busy in a pass, by operators whose kernels were measured."""
    resident = pass_time(work, setting).resident
    known = total = 0.0
    for _, table in tables(work, setting):
        for row in table:
            time = operator_time(row, setting.device, resident, setting.phase)
            total += time.busy * row.count
            known += time.busy * row.count * (time.origin == "calibrated")
    return known / total if total else 0.0
