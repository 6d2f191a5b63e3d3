"""Exact Gaussian process regression with learned noise.

Rasmussen and Williams 2006, "Gaussian processes for machine learning": algorithm 2.1, equations 5.9 (gradient of the
marginal likelihood) and 5.12 (leave-one-out in closed form). Hyperparameters are the most probable ones under
log-normal priors; that of the lengths grows with the number of columns (Hvarfner et al. 2024, "Vanilla Bayesian
optimization performs great in high dimensions", arXiv 2402.02229).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.linalg.lapack import dpotri
from scipy.optimize import minimize

from search.frontier.kernels import Gram, Inputs, Kernel, Scaled

Reals = NDArray[np.float64]

AMPLITUDE, NOISE = (math.log(0.03), 3.0), (math.log(1e-3), 2.5)  # mean and deviation of logs; targets have variance 1
LENGTH = (math.sqrt(2), math.sqrt(3))  # plus half the log of the number of columns
# A fit starts from lengths shorter than that by so many logs, since from long ones it may end where all is noise, and
# from little noise as well as from much, since from either it may end at a wrong one.
SHORTER, NOISY = 1.5, math.log(0.15)
STEPS, FITTED = 40, 128  # of L-BFGS; points that the hyperparameters are fitted to, at most
JITTER = 1e-8
BOUNDS = (-14.0, 6.0)
NOISE_BOUNDS = (math.log(1e-7), 0.0)


@dataclass(frozen=True)
class Posterior:
    """A process given observations.

    Attributes:
        theta: log hyperparameters of the kernel, then the log of the noise's variance.
        noise: standard deviation of an observation, in the units of the targets.
        left_out: mean and standard deviation of each target as foretold by all the others, ``[n, 2]``.
        density: mean log density of the targets so foretold, standardised.
    """

    kernel: Kernel
    theta: Reals
    known: Scaled
    factor: Reals
    weights: Reals
    middle: float
    scale: float
    noise: float
    left_out: Reals
    density: float

    def mean(self, x: Inputs) -> Reals:
        found: Reals = self.middle + self.scale * (self.kernel.scaled(x).covariance(self.known) @ self.weights)
        return found

    def marginal(self, x: Inputs) -> tuple[Reals, Reals]:
        """Mean and standard deviation of the noiseless function."""
        scaled = self.kernel.scaled(x)
        cross = scaled.covariance(self.known)
        spread = solve_triangular(self.factor, cross.T, lower=True, check_finite=False)
        variance = scaled.variance() - np.einsum("nm,nm->m", spread, spread)
        return self.middle + self.scale * (cross @ self.weights), self.scale * np.sqrt(np.maximum(variance, 1e-12))

    def draws(self, x: Inputs, normal: Reals) -> Reals:
        """Functions drawn from the posterior, ``[draws, rows]``, from standard normal numbers of that shape."""
        scaled = self.kernel.scaled(x)
        cross = scaled.covariance(self.known)
        spread = solve_triangular(self.factor, cross.T, lower=True, check_finite=False)
        covariance = scaled.covariance(scaled) - spread.T @ spread
        root = _root(covariance)
        found: Reals = self.middle + self.scale * (cross @ self.weights + normal @ root.T)
        return found


def fit(x: Inputs, targets: Reals) -> Posterior:
    """The posterior under the most probable hyperparameters. Deterministic."""
    middle = float(targets.mean())
    scale = float(targets.std()) or 1.0
    standard = (targets - middle) / scale
    theta = _hyperparameters(x, standard)
    kernel = Kernel(x, theta)
    known = kernel.scaled(x)
    noise = math.exp(theta[-1])
    factor = _cholesky(known.covariance(known) + noise * np.eye(len(x)))
    weights = cho_solve((factor, True), standard, check_finite=False)
    precision = np.diag(dpotri(factor, lower=1)[0])
    foretold, deviation = standard - weights / precision, 1 / np.sqrt(precision)
    density = -0.5 * (((standard - foretold) / deviation) ** 2 + np.log(2 * math.pi * deviation**2))
    left_out = np.column_stack([middle + scale * foretold, scale * deviation])
    return Posterior(
        kernel, theta, known, factor, weights, middle, scale, scale * math.sqrt(noise), left_out, float(density.mean())
    )


def _hyperparameters(x: Inputs, targets: Reals) -> Reals:
    amplitudes, lengths = Kernel.size(x)
    mean = np.full(amplitudes + lengths + 1, AMPLITUDE[0])
    deviation = np.full(len(mean), AMPLITUDE[1])
    columns = np.concatenate(
        [np.full(x.smooth.shape[1], x.smooth.shape[1]), np.full(lengths - x.smooth.shape[1], x.frame.shape[1])]
    )
    mean[amplitudes:-1] = LENGTH[0] + 0.5 * np.log(columns)
    deviation[amplitudes:-1] = LENGTH[1]
    mean[-1], deviation[-1] = NOISE
    some = _some(len(x))
    gram, y = Gram(x.rows(some)), targets[some]

    def loss(theta: Reals) -> tuple[float, Reals]:
        covariance, slope_of = gram.at(theta)
        noise = math.exp(theta[-1])
        covariance[gram.own] += noise + JITTER
        try:
            factor = cholesky(gram.matrix(covariance), lower=True, overwrite_a=True, check_finite=False)
        except np.linalg.LinAlgError:
            return 1e10, np.zeros_like(theta)
        weights = cho_solve((factor, True), y, check_finite=False)
        pull = gram.pairs(dpotri(factor, lower=1)[0]) - weights[gram.first] * weights[gram.second]
        trace = float(pull[gram.own].sum())
        pull[gram.own] *= 0.5  # every other pair stands for two entries
        slope = np.concatenate([slope_of(pull), [0.5 * noise * trace]])
        away = (theta - mean) / deviation
        value = 0.5 * float(y @ weights) + float(np.log(np.diag(factor)).sum()) + 0.5 * float(away @ away)
        return value, slope + away / deviation

    quiet = mean.copy()
    quiet[amplitudes:-1] -= SHORTER
    noisy = np.append(quiet[:-1], NOISY)
    bounds = [BOUNDS] * (len(mean) - 1) + [NOISE_BOUNDS]
    ends = [
        minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": STEPS})
        for start in (quiet, noisy)
    ]
    found: Reals = min(ends, key=lambda end: float(end.fun)).x
    return found


def _some(count: int) -> NDArray[np.intp]:
    """The newest points and an even choice of the others: a fit costs the cube of their number."""
    if count <= FITTED:
        return np.arange(count)
    newest = np.arange(count - FITTED // 2, count)
    return np.concatenate([np.linspace(0, count - FITTED // 2 - 1, FITTED // 2).astype(np.intp), newest])


def _cholesky(covariance: Reals) -> Reals:
    size = float(np.trace(covariance)) / len(covariance)
    for power in range(-10, 0):
        try:
            found: Reals = cholesky(
                covariance + 10.0**power * size * np.eye(len(covariance)), lower=True, check_finite=False
            )
            return found
        except np.linalg.LinAlgError:
            continue
    raise AssertionError("a covariance is not positive")


def _root(covariance: Reals) -> Reals:
    return _cholesky(0.5 * (covariance + covariance.T))
