"""Predictions beside what was measured: how far off, whether in order, and whether as sure as they claim."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from archspec.errors import Problem, SpecError
from search.calibration.fitting import at_work
from search.calibration.truth import Truth
from search.cost.block import flops
from search.cost.devices import Device
from search.cost.interval import covered, interval
from search.cost.passes import pass_time, seconds, tables

CLOSE = 0.15  # pairs whose FLOPs differ by no more are hard to put in order


@dataclass(frozen=True)
class Checked:
    """A measurement and its prediction.

    Attributes:
        predicted_ms, low_ms, high_ms: the latency, and the interval of nine in ten (`search.cost.interval`).
        flops: of the pass.
    """

    truth: Truth
    predicted_ms: float
    low_ms: float
    high_ms: float
    flops: int

    @property
    def error(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted_ms / self.truth.median_ms - 1

    @property
    def inside(self) -> bool:
        """Whether what was measured lies in the interval."""
        return self.low_ms <= self.truth.median_ms <= self.high_ms


@dataclass(frozen=True)
class Summary:
    """How good predictions of one phase are.

    Attributes:
        error: the mean relative one.
        tau: Kendall's tau-b; None where there is nothing to order.
        ordered: the share of pairs within 15 % FLOPs that are in the right order, and how many pairs there are.
        coverage: the share that lies in its interval; 0.9 is promised.
    """

    count: int
    error: float
    tau: float | None
    ordered: float | None
    pairs: int
    coverage: float


def check(
    truths: Iterable[Truth], device: Device, *, fingerprint: Mapping[str, str | int] | None = None
) -> list[Checked]:
    """Predicts what was measured; what was compiled is left out, since operators are priced one by one.

    Args:
        fingerprint: what the profile is of; as the profile says by default.

    Errors:
        SpecError: something was measured on another device or by other versions than the profile, or has no price.
    """
    eager = [truth for truth in truths if not truth.compiled]
    mark = fingerprint or (device.measured.fingerprint if device.measured else {})
    others = {_shown(truth.fingerprint): truth.fingerprint for truth in eager if _differs(truth.fingerprint, mark)}
    if others:
        hint = "name its profile with --device, or measure again"
        raise SpecError(*(Problem(f"measured on {other}; the profile is of {_shown(mark)}", hint) for other in others))
    return [_checked(truth, device) for truth in eager]


def _differs(one: Mapping[str, str | int], other: Mapping[str, str | int]) -> bool:
    return any(one[key] != other[key] for key in one.keys() & other.keys())


def _shown(mark: Mapping[str, str | int]) -> str:
    return ", ".join(str(value) if key == "device" else f"{key} {value}" for key, value in mark.items())


def _checked(truth: Truth, device: Device) -> Checked:
    work, under = at_work(truth, device)
    milliseconds = 1e3 * seconds(pass_time(work, under), under)
    bounds = interval(device, truth.phase, covered(work, under))
    count = sum(flops(table) for _, table in tables(work, under))
    return Checked(truth, milliseconds, bounds.low * milliseconds, bounds.high * milliseconds, count)


def summary(checked: Sequence[Checked]) -> Summary:
    """How good the predictions are; they should be of one phase."""
    predicted = np.array([one.predicted_ms for one in checked])
    measured = np.array([one.truth.median_ms for one in checked])
    share, pairs = ordered(predicted, measured, [one.flops for one in checked])
    return Summary(
        count=len(checked),
        error=float(np.mean([abs(one.error) for one in checked])),
        tau=tau(predicted, measured),
        ordered=share,
        pairs=pairs,
        coverage=float(np.mean([one.inside for one in checked])),
    )


def tau(predicted: ArrayLike, measured: ArrayLike) -> float | None:
    """Kendall's tau-b (Kendall 1945, "The treatment of ties in ranking problems"); None where all are tied."""
    a, b = np.asarray(predicted, dtype=np.float64), np.asarray(measured, dtype=np.float64)
    agreed = told = there = 0.0
    for number in range(len(a) - 1):
        one, other = np.sign(a[number + 1 :] - a[number]), np.sign(b[number + 1 :] - b[number])
        agreed += float(one @ other)
        told += float(np.count_nonzero(one))
        there += float(np.count_nonzero(other))
    return agreed / sqrt(told * there) if told * there else None


def ordered(predicted: ArrayLike, measured: ArrayLike, count: ArrayLike) -> tuple[float | None, int]:
    """Of the pairs whose FLOPs differ by at most 15 %, the share in the right order, and their number."""
    work = np.asarray(count, dtype=np.float64)
    near = np.triu(np.maximum(work[:, None], work) <= (1 + CLOSE) * np.minimum(work[:, None], work), 1)
    right = (_signs(predicted) == _signs(measured))[near]
    return (float(right.mean()), right.size) if right.size else (None, 0)


def _signs(values: ArrayLike) -> NDArray[np.float64]:
    """Of the differences of all pairs."""
    found = np.asarray(values, dtype=np.float64)
    return np.sign(found[:, None] - found)
