"""A few constants fitted so that a time model agrees with measurements on a device, perhaps as few as ten.

    latency = sum over classes of factor * seconds of the class under the profile + constant

All constants are at least 0. Errors are relative, and weighed by Huber's loss (Huber 1964, "Robust Estimation of a
Location Parameter", doi 10.1214/aoms/1177703732), since some measurements are of another machine or a loaded one. The
profile's physics is the prior: factors that the measurements do not tell apart stay alike, and the constant stays 0.
Fits with priors of many strengths are averaged, each weighed by how likely its leave-one-out errors are (of Laplace's
distribution: their mean to the power of minus the number of measurements). Least squares without negative solutions is
by active sets (Lawson and Hanson 1974, "Solving Least Squares Problems", chapter 23).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Reals = NDArray[np.float64]

STRENGTHS = tuple(10.0**power for power in range(-6, 1))  # of the prior, beside a mean squared relative error
FOLDS = 32  # measurements are left out one by one up to so many, then in so many groups
ROUNDS = 12  # of weighing anew
CLOSEST = 1e-4  # relative errors below this are none
SLIGHT = 1e-9  # holds the common scale where nothing else does


@dataclass(frozen=True)
class Fit:
    """Constants of a device.

    Attributes:
        factors: by class, on the seconds that the profile gives it.
        constant: seconds of every pass.
        residuals: by measurement, ``predicted / measured - 1`` of the fit to the others; to itself where it is alone.
    """

    factors: Reals
    constant: float
    residuals: Reals

    def predict(self, features: ArrayLike) -> Reals:
        """Seconds, for ``[models, classes]`` seconds under the profile."""
        return np.asarray(features, dtype=np.float64) @ self.factors + self.constant


def fit(features: ArrayLike, measured: ArrayLike) -> Fit:
    """Fits constants to measurements.

    Args:
        features: ``[measurements, classes]``, seconds of each class of operators under the profile.
        measured: ``[measurements]``, seconds.

    Errors:
        ValueError: there is no measurement, shapes differ, a measurement is not above 0, a feature is below 0, a model
            has no work, or a number is not finite.
    """
    x, y = _checked(features, measured)
    scale = float(np.exp(np.median(np.log(y / x.sum(axis=1)))))  # so that factors are near 1
    typical = float(np.exp(np.mean(np.log(y))))
    rows = np.column_stack([x * scale / y[:, None], np.zeros(len(y)), typical / y])  # classes, common scale, constant
    residuals = np.array([_left_out(rows, strength) for strength in STRENGTHS])
    mean = np.maximum(np.abs(residuals).mean(axis=1), CLOSEST)
    weights = (mean / mean.min()) ** -float(len(y))
    weights /= weights.sum()
    solution = weights @ np.array([_solve(rows, strength) for strength in STRENGTHS])
    return Fit(solution[:-2] * scale, float(solution[-1]) * typical, weights @ residuals)


def _checked(features: ArrayLike, measured: ArrayLike) -> tuple[Reals, Reals]:
    x, y = np.asarray(features, dtype=np.float64), np.asarray(measured, dtype=np.float64)
    if x.ndim != 2 or y.ndim != 1 or len(x) != len(y) or not x.shape[1]:
        raise ValueError(f"features {list(x.shape)} for measurements {list(y.shape)}")
    if not len(y):
        raise ValueError("nothing was measured")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("a number is not finite")
    if y.min() <= 0:
        raise ValueError(f"measurement {int(np.argmin(y))} is not above 0")
    if x.min() < 0:
        raise ValueError(f"measurement {int(np.argmin(x.min(axis=1)))} has a feature below 0")
    if x.sum(axis=1).min() <= 0:
        raise ValueError(f"measurement {int(np.argmin(x.sum(axis=1)))} is of a model without work")
    return x, y


def _left_out(rows: Reals, strength: float) -> Reals:
    """Relative errors of measurements that the solution has not seen."""
    count = len(rows)
    if count == 1:
        return np.asarray(rows @ _solve(rows, strength) - 1)
    fold = np.arange(count) % min(count, FOLDS)
    errors: Reals = np.empty(count)
    for number in range(min(count, FOLDS)):
        out = fold == number
        errors[out] = rows[out] @ _solve(rows[~out], strength) - 1
    return errors


def _solve(rows: Reals, strength: float) -> Reals:
    """Constants w, the factors first, that make ``rows @ w`` nearly 1, weighed anew until outliers count by their size.

    The prior is ``strength * (sum of (factor - common scale)^2 + constant^2)``.
    """
    classes = rows.shape[1] - 2
    prior = np.diag([strength] * classes + [strength * classes + SLIGHT, strength])
    prior[:classes, classes] = prior[classes, :classes] = -strength
    pull = np.zeros(classes + 2)
    pull[classes] = SLIGHT
    weights = np.full(len(rows), 1 / len(rows))
    for _ in range(ROUNDS):
        weighed = rows * weights[:, None]
        solution = _nonnegative(weighed.T @ rows + prior, weighed.sum(axis=0) + pull)
        errors = np.abs(rows @ solution - 1)
        knee = max(float(np.median(errors)), CLOSEST)
        weights = knee / np.maximum(errors, knee)
        weights /= weights.sum()
    return solution


def _nonnegative(square: Reals, linear: Reals) -> Reals:
    """The w of which no entry is below 0 that minimises ``w' square w - 2 linear' w``."""
    whole: Reals = np.asarray(np.linalg.solve(square, linear), dtype=np.float64)
    if whole.min() >= 0:
        return whole
    solution = np.zeros(len(linear))
    free = np.zeros(len(linear), dtype=np.bool_)
    enough = 1e-12 * float(np.abs(linear).max())
    for _ in range(8 * len(linear)):
        gain = np.where(free, -np.inf, linear - square @ solution)
        if gain.max() <= enough:
            break
        free[np.argmax(gain)] = True
        while free.any():
            wanted = np.zeros(len(linear))
            wanted[free] = np.linalg.solve(square[np.ix_(free, free)], linear[free])
            if wanted[free].min() > 0:
                break
            bound = free & (wanted <= 0)
            step = float((solution[bound] / (solution[bound] - wanted[bound])).min())
            solution = solution + step * (wanted - solution)
            free &= solution > 1e-15
        solution = wanted if free.any() else np.zeros(len(linear))
    return solution
