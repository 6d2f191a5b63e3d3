"""The loss at the end of a training run, foretold from its beginning, with an interval.

Where other candidates went the whole way, on the same data by the same schedule, their ends are regressed on their
losses at the step that this one has reached: what the schedule does to all of them is then known. Before that a curve
speaks for itself. It is ``E + A f(u) - C a(u)`` plus a bend and noise: ``u`` is the area under the learning rate up to
a step, ``a`` what annealing has taken off it (Tissue et al. 2024, "Scaling law with learning rate annealing", arXiv
2408.11029), and ``f`` one of several shapes, powers and exponentials, among which the data choose (Domhan et al. 2015,
"Speeding up automatic hyperparameter optimization by extrapolation of learning curves"). Given shape, bend and noise
all is Gaussian and in closed form; the forecast is a mixture, weighted by evidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv

Reals = NDArray[np.float64]
Curve = Sequence[tuple[int, float]]  # steps done, and the loss then

SHAPES = [*(("power", p) for p in (0.15, 0.3, 0.5, 0.75, 1.0, 1.5)), *(("decay", d) for d in (0.05, 0.15, 0.4))]
NOISES = np.geomspace(0.25, 4, 5)  # times what is expected of it
BENDS = np.array([0.1, 0.3, 1.0])  # how far curves may leave their shape, in what they fell
EXPECTED_NOISE = 0.004  # of the loss, between validations of one run
ENOUGH = 4  # curves that went the whole way, to learn from
PARTS = 64  # Gaussians for a Student's t


@dataclass(frozen=True)
class Foretold:
    """A mixture of Gaussians: what a loss will be, the noise of one validation included."""

    weights: Reals
    means: Reals
    deviations: Reals

    @property
    def mean(self) -> float:
        return float(self.weights @ self.means)

    @property
    def deviation(self) -> float:
        return math.sqrt(float(self.weights @ (self.deviations**2 + (self.means - self.mean) ** 2)))

    def below(self, loss: float) -> float:
        """How probable it is that the loss ends below one."""
        away = (loss - self.means) / self.deviations
        return float(self.weights @ [0.5 * math.erfc(-x / math.sqrt(2)) for x in away])

    def interval(self, level: float = 0.9) -> tuple[float, float]:
        """Between which losses it ends with a probability of ``level``; as probable to miss on either side."""
        return self._quantile((1 - level) / 2), self._quantile((1 + level) / 2)

    def _quantile(self, share: float) -> float:
        low, high = float((self.means - 9 * self.deviations).min()), float((self.means + 9 * self.deviations).max())
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.below(middle) < share else (low, middle)
        return (low + high) / 2


def foretell(
    curve: Curve, at: int, *, rate: Callable[[int], float] | None = None, ended: Sequence[Curve] = ()
) -> Foretold:
    """What the loss will be after a step.

    Args:
        curve: validations so far; at least two, where fewer than four others went the whole way.
        at: the step in question, as a rule the last one.
        rate: the learning rate of each step, counted from 0; constant by default.
        ended: curves of other candidates up to that step, by the same schedule and on the same data; those of one
            candidate's seeds count as one.
    """
    steps, losses = _columns(curve)
    others = [_columns(other) for other in ended]
    known = [(np.interp(steps[-1], *other), np.interp(at, *other)) for other in others if other[0][0] <= steps[-1]]
    return _regressed(float(losses[-1]), known) if len(known) >= ENOUGH else _extrapolated(steps, losses, at, rate)


def _regressed(now: float, known: Sequence[tuple[float, float]]) -> Foretold:
    """A linear regression with a Student's t; a priori losses differ at the end by what they differ now."""
    before, after = np.array(known, np.float64).T
    count, centre = len(before), before.mean()
    square = float(((before - centre) ** 2).sum())
    # The prior of the slope counts as one more candidate at the distance of the others.
    weight = square * (1 + 1 / count)
    slope = 1.0 if weight == 0 else 1 + float((before - centre) @ (after - before)) / weight
    misses = after - after.mean() - slope * (before - centre)
    freedom = count - 1 - (square / weight if weight else 0.0)
    deviation = math.sqrt(float(misses @ misses) / freedom)
    leverage = 1 / count + ((now - centre) ** 2 / weight if weight else 0.0)
    deviation = max(deviation * math.sqrt(1 + leverage), 1e-9 * abs(now))
    # Student's t is a mixture of Gaussians whose inverse variances are chi-squared.
    shares = (np.arange(PARTS) + 0.5) / PARTS
    deviations = deviation / np.sqrt(2 * gammaincinv(freedom / 2, shares) / freedom)
    mean = after.mean() + slope * (now - centre)
    return Foretold(np.full(PARTS, 1 / PARTS), np.full(PARTS, mean), deviations)


def _extrapolated(steps: NDArray[np.int64], losses: Reals, at: int, rate: Callable[[int], float] | None) -> Foretold:
    if len(steps) < 2:
        raise ValueError("one point makes no curve")
    clock = _Clock(at, rate)
    points = np.append(steps, at)
    bend = clock.bend(points)
    means, deviations, evidence = [], [], []
    for shape in SHAPES:
        prior = _vague(clock, shape, points, losses)
        noises, bends = (grid.ravel() for grid in np.meshgrid(prior.noise * NOISES, prior.bend * BENDS))
        covariance = prior.covariance + bends[:, None, None] ** 2 * bend
        mean, variance, logarithm = _posterior(prior.mean, covariance, losses, noises)
        means.append(mean)
        deviations.append(np.sqrt(variance + noises**2))
        # a priori the noise is lognormal about what is expected
        evidence.append(logarithm - 0.5 * np.log(noises / prior.noise) ** 2)
    logarithms = np.concatenate(evidence)
    weights = np.exp(logarithms - logarithms.max())
    return Foretold(weights / weights.sum(), np.concatenate(means), np.concatenate(deviations))


class _Clock:
    """Areas under a schedule."""

    def __init__(self, at: int, rate: Callable[[int], float] | None) -> None:
        rates = np.array([rate(step) for step in range(at)] if rate else [1.0] * at)
        rates = rates / rates.max()
        after = np.arange(at) > int(rates.argmax())
        self.area = np.cumsum(rates)
        self.annealed = np.cumsum(np.where(after, 1 - rates, 0.0)) / at

    def bend(self, steps: NDArray[np.int64]) -> Reals:
        """Covariance of an integrated random walk over the logarithm of the area, from the first point on."""
        time = np.log(self.area[steps - 1] / self.area[steps[0] - 1])
        early, late = np.minimum.outer(time, time), np.maximum.outer(time, time)
        found: Reals = early**2 * (late / 2 - early / 6)
        return found

    def design(self, shape: tuple[str, float], steps: NDArray[np.int64]) -> Reals:
        """``[steps, 3]``: what E, A and C are multiplied by."""
        share = self.area[steps - 1] / self.area[-1]
        kind, number = shape
        fall = share**-number - 1 if kind == "power" else np.exp(-share / number)
        return np.stack([np.ones(len(steps)), fall, -self.annealed[steps - 1]], 1)


@dataclass(frozen=True)
class _Prior:
    """Of a curve at some points, before any of it is seen; ``bend`` is what it may leave its shape by."""

    mean: Reals
    covariance: Reals
    noise: float
    bend: float


def _columns(curve: Curve) -> tuple[NDArray[np.int64], Reals]:
    steps, losses = zip(*curve, strict=True)
    return np.array(steps), np.array(losses, np.float64)


def _vague(clock: _Clock, shape: tuple[str, float], points: NDArray[np.int64], losses: Reals) -> _Prior:
    """Little is known: a curve may go on to fall by about as much as it did, and anneal by a part of that."""
    half = np.searchsorted(clock.area[points[:-1] - 1], clock.area[points[-2] - 1] / 2)
    fallen = max(float(losses[min(half, len(losses) - 2)] - losses[-1]), 0.02 * abs(float(losses[-1])))
    design = clock.design(shape, points)
    column = design[:-1, 1]
    slope = float(losses[0] - losses[-1]) / max(float(np.ptp(column)), 1e-9)
    mean = np.array([losses[-1] - slope * column[-1], slope, fallen])
    spread = design * np.array([2 * fallen, 2 * slope, 3 * fallen])
    return _Prior(design @ mean, spread @ spread.T, EXPECTED_NOISE * abs(float(losses[-1])), fallen)


def _posterior(mean: Reals, covariance: Reals, losses: Reals, noises: Reals) -> tuple[Reals, Reals, Reals]:
    """Means and variances of curves at their last point, given the others with noise; logarithms of the evidence.

    Args:
        mean: ``[points + 1]``; covariance: ``[variants, points + 1, points + 1]``; noises: ``[variants]``.
    """
    count = len(losses)
    factor = np.linalg.cholesky(covariance[:, :count, :count] + noises[:, None, None] ** 2 * np.eye(count))
    given = np.stack([np.broadcast_to(losses - mean[:count], (len(noises), count)), covariance[:, :count, count]], -1)
    solved = np.linalg.solve(factor, given)
    away, gain = solved[..., 0], solved[..., 1]
    variance = np.maximum(covariance[:, count, count] - (gain**2).sum(-1), 0.0)
    logarithm = -0.5 * (away**2).sum(-1) - np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(-1)
    return mean[count] + (gain * away).sum(-1), variance, logarithm
