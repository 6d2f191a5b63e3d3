from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from search.frontier.gaussian_process import fit
from search.frontier.kernels import Gram, Inputs, Kernel


def inputs(count: int, seed: int = 0, effects: bool = True) -> Inputs:
    draw = np.random.default_rng(seed).standard_normal
    blocks = (draw((count, 6)), draw((count, 4))) if effects else ()
    return Inputs((draw((count, 3)),) if effects else (), draw((count, 2)), draw((count, 2)), blocks)


def target(x: Inputs) -> np.ndarray:
    return (
        np.sin(x.smooth[:, 0]) + 0.3 * x.smooth[:, 1] + x.frame[:, 0] * (x.effects[0].sum(axis=1) if x.effects else 1)
    )


def test_the_posterior_is_that_of_scikit_learn() -> None:
    x, new = inputs(40, effects=False), inputs(15, seed=1, effects=False)
    y = np.sin(2 * x.smooth[:, 0]) + 0.05 * np.random.default_rng(2).standard_normal(40)
    ours = fit(x, y)
    amplitude, first, second, noise = np.exp(ours.theta)
    kernel = ConstantKernel(1.0) + ConstantKernel(amplitude) * RBF([first, second]) + WhiteKernel(noise)
    theirs = GaussianProcessRegressor(kernel, optimizer=None).fit(x.smooth, (y - y.mean()) / y.std())
    mean, deviation = ours.marginal(new)
    wanted, covariance = theirs.predict(new.smooth, return_cov=True)
    covariance -= noise * np.eye(15)  # theirs foretells observations, ours the function
    assert mean == pytest.approx(y.mean() + y.std() * wanted, rel=1e-5, abs=1e-5)
    assert deviation == pytest.approx(y.std() * np.sqrt(np.diag(covariance)), rel=1e-3, abs=1e-5)
    assert ours.mean(new) == pytest.approx(mean)
    drawn = ours.draws(new, np.random.default_rng(3).standard_normal((20_000, 15)))
    assert np.abs(np.cov(drawn.T) / y.var() - covariance).max() < 0.05 * covariance.max()


def test_leaving_one_out_is_refitting_without_it() -> None:
    x = inputs(25)
    y = target(x) + 0.1 * np.random.default_rng(4).standard_normal(25)
    ours = fit(x, y)
    noise = math.exp(ours.theta[-1])
    kernel = Kernel(x, ours.theta)
    for left in range(25):
        rest = np.delete(np.arange(25), left)
        known, one = kernel.scaled(x.rows(rest)), kernel.scaled(x.rows([left]))
        weights = np.linalg.solve(known.covariance(known) + noise * np.eye(24), known.covariance(one))[:, 0]
        standard = (y[rest] - y.mean()) / y.std()
        variance = one.variance()[0] + noise - weights @ known.covariance(one)[:, 0]
        assert ours.left_out[left, 0] == pytest.approx(y.mean() + y.std() * (weights @ standard), abs=1e-5)
        assert ours.left_out[left, 1] == pytest.approx(y.std() * math.sqrt(variance), rel=1e-4)


def test_derivatives_are_differences() -> None:
    x = inputs(7)
    theta = 0.3 * np.random.default_rng(5).standard_normal(sum(Kernel.size(x)))
    _, slope_of = Gram(x).at(theta)
    weights = np.random.default_rng(6).standard_normal(28)
    found = approx_fprime(theta, lambda at: float((weights * Gram(x).at(at)[0]).sum()), 1e-6)
    assert slope_of(weights).tolist() == pytest.approx(found.tolist(), rel=1e-3, abs=1e-4)


def test_the_gram_matrix_is_the_covariance_of_the_scaled() -> None:
    x = inputs(9)
    theta = 0.3 * np.random.default_rng(7).standard_normal(sum(Kernel.size(x)))
    scaled = Kernel(x, theta).scaled(x)
    gram, covariance = Gram(x), scaled.covariance(scaled)
    assert gram.matrix(gram.at(theta)[0]) == pytest.approx(np.tril(covariance))
    assert gram.pairs(covariance) == pytest.approx(gram.at(theta)[0])
    assert np.diag(scaled.covariance(scaled)) == pytest.approx(scaled.variance())


@pytest.mark.parametrize("noise", [0.03, 0.3])
def test_noise_is_learned(noise: float) -> None:
    x = inputs(150)
    y = target(x) + noise * np.random.default_rng(8).standard_normal(150)
    assert fit(x, y).noise == pytest.approx(noise, rel=0.35)


def test_equal_targets_and_repeated_points_are_no_trouble() -> None:
    x = inputs(12).rows([0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 8])
    assert np.isfinite(fit(x, np.ones(12)).left_out).all()
    mean, deviation = fit(x, np.arange(12.0)).marginal(inputs(30, seed=9))
    assert np.isfinite(mean).all()
    assert (deviation > 0).all()
