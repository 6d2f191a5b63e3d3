"""Constants fitted to measurements, against those that the measurements were made with."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from search.cost.fit import Fit, fit

FACTORS = np.array([2.5, 6.0, 1.5, 4.0])


def models(count: int, seed: int = 0) -> NDArray[np.float64]:
    """Seconds by class of made-up models."""
    draw = np.random.default_rng(seed)
    size = draw.uniform(1, 8, (count, 1))
    seconds: NDArray[np.float64] = 1e-3 * size * np.array([2.0, 0.4, 1.0, 0.7]) * draw.uniform(0.1, 1.9, (count, 4))
    return seconds


def made(count: int, noise: float, constant: float = 0.0, seed: int = 0) -> tuple[Fit, NDArray[np.float64]]:
    """A fit to made-up measurements, and its errors on models that it has not seen, without noise."""
    draw = np.random.default_rng(seed + 1)
    x = models(count, seed)
    found = fit(x, (x @ FACTORS + constant) * np.exp(noise * draw.standard_normal(count)))
    unseen = models(500, seed + 2)
    return found, found.predict(unseen) / (unseen @ FACTORS + constant) - 1


def test_known_constants_are_found() -> None:
    found, errors = made(200, noise=0.01, constant=2e-3)
    assert found.factors == pytest.approx(FACTORS, rel=0.05)
    assert found.constant == pytest.approx(2e-3, rel=0.2)
    assert np.abs(errors).mean() < 0.005


def test_ten_measurements_predict_within_the_noise() -> None:
    errors = [np.abs(made(10, noise=0.05, seed=10 * seed)[1]).mean() for seed in range(10)]
    assert np.mean(errors) < 0.05
    alone = models(500) @ FACTORS / models(500).sum(axis=1)
    assert np.abs(alone / np.median(alone) - 1).mean() > 0.08  # what one common scale would leave


def test_left_out_errors_are_those_of_unseen_models() -> None:
    found, errors = made(40, noise=0.05)
    expected = np.sqrt(0.05**2 * 2 / np.pi + np.mean(errors**2))
    assert np.abs(found.residuals).mean() == pytest.approx(expected, rel=0.35)


def test_a_measurement_of_another_machine_changes_little() -> None:
    x = models(12)
    y = x @ FACTORS
    y[3] *= 0.6
    found = fit(x, y)
    unseen = models(200, 5)
    assert np.abs(found.predict(unseen) / (unseen @ FACTORS) - 1).mean() < 0.02
    squares = np.linalg.lstsq(x / y[:, None], np.ones(12), rcond=None)[0]
    assert np.abs(unseen @ squares / (unseen @ FACTORS) - 1).mean() > 0.05
    assert found.residuals[3] == pytest.approx(1 / 0.6 - 1, rel=0.1)


def test_one_measurement_gives_one_scale() -> None:
    found = fit([[1e-3, 2e-3, 0.0]], [9e-3])
    assert found.factors == pytest.approx([3.0, 3.0, 3.0], rel=1e-6)
    assert found.constant == pytest.approx(0, abs=1e-9)


def test_a_class_that_no_measurement_tells_keeps_the_common_scale() -> None:
    x = models(20)
    x[:, 1] = 0
    assert fit(x, 3 * x.sum(axis=1)).factors == pytest.approx([3.0] * 4, rel=1e-3)


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_negative(seed: int) -> None:
    draw = np.random.default_rng(seed)
    x = draw.exponential(1e-3, (6, 4))
    found = fit(x, draw.exponential(1e-3, 6) + 1e-5)
    assert found.factors.min() >= 0 and found.constant >= 0
    assert np.isfinite(found.residuals).all()


def test_units_do_not_matter() -> None:
    x = models(10)
    y = x @ FACTORS * np.exp(0.1 * np.random.default_rng(3).standard_normal(10))
    slow, fast = fit(x, 1e3 * y), fit(x, y)
    assert slow.factors == pytest.approx(1e3 * fast.factors, rel=1e-6)
    assert slow.residuals == pytest.approx(fast.residuals, abs=1e-8)


NONSENSE: dict[str, tuple[ArrayLike, ArrayLike]] = {
    "nothing was measured": (np.zeros((0, 3)), []),
    "for measurements": ([[1.0, 2.0]], [1.0, 2.0]),
    "measurement 1 is not above 0": ([[1.0], [1.0]], [1.0, -1.0]),
    "measurement 0 has a feature below 0": ([[1.0, -0.1]], [1.0]),
    "measurement 1 is of a model without work": ([[1.0, 0.0], [0.0, 0.0]], [1.0, 1.0]),
    "not finite": ([[1.0]], [float("nan")]),
}


@pytest.mark.parametrize("cause", NONSENSE)
def test_nonsense_is_refused(cause: str) -> None:
    with pytest.raises(ValueError, match=cause):
        fit(*NONSENSE[cause])
