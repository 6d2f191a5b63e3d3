"""Forecasts of losses: intervals hold what they promise, on made-up curves and on curves of small decoders."""

import json
import statistics
import time
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm, t

from search.fidelity.curves import Foretold, foretell
from search.recipe import Recipe

STORED = json.loads((Path(__file__).parent / "data" / "curves.json").read_text())
RUNS = STORED["runs"]
RATE = Recipe.model_validate(STORED["recipe"]).rate
END = STORED["recipe"]["steps"]

# Curves of Domhan et al. 2015, none of them exactly one of ours, over the share of the training.
FAMILIES = {
    "pow3": lambda u, c: 0.3 * u ** -c.uniform(0.2, 1),
    "pow4": lambda u, c: (u * c.uniform(1, 10) + c.uniform(0.1, 1)) ** -c.uniform(0.3, 1.5),
    "exp4": lambda u, c: 3 * np.exp(-((u * c.uniform(2, 6)) ** c.uniform(0.5, 1))),
    "ilog": lambda u, c: 2 / np.log(27 * u + 2),
}


@pytest.mark.parametrize("share", [1 / 9, 1 / 3, 2 / 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_interval_holds_the_end_of_made_up_curves(family, share):
    chance = np.random.default_rng(0)
    hits = []
    for _ in range(40):
        steps = np.arange(9, 271, 9)
        true = chance.uniform(1, 4) + chance.uniform(0.1, 1) * FAMILIES[family](steps / 270, chance)
        seen = true + true[-1] * 0.004 * chance.lognormal(0, 0.5) * chance.standard_normal(len(steps))
        count = int(len(steps) * share)
        low, high = foretell(list(zip(steps[:count].tolist(), seen[:count], strict=True)), 270).interval(0.9)
        hits.append(low <= seen[-1] <= high)
    assert np.mean(hits) >= 0.8


def cut(run, step):
    return [(at, loss) for at, loss in run["curve"] if at <= step]


def others(run, count=None):
    """Curves of other candidates, one seed of each."""
    found = {other["candidate"]: other["curve"] for other in RUNS if other["candidate"] != run["candidate"]}
    return list(found.values())[:count]


@pytest.mark.parametrize("known", [6, None])
@pytest.mark.parametrize("step", [27, 81, 162])
def test_an_interval_holds_the_end_of_decoders_that_others_foretell(step, known):
    told = [(foretell(cut(run, step), END, ended=others(run, known)), run["curve"][-1][1]) for run in RUNS]
    hits = [low <= end <= high for f, end in told for low, high in [f.interval(0.9)]]
    assert 0.8 <= np.mean(hits) <= 1
    wide = statistics.median(high - low for f, _ in told for low, high in [f.interval(0.9)])
    assert wide < {27: 0.6, 81: 0.3, 162: 0.15}[step]  # the ends themselves lie 0.3 apart
    misses = [f.mean - end for f, end in told]
    alone = [foretell(cut(run, step), END, rate=RATE).mean - run["curve"][-1][1] for run in RUNS]
    assert np.square(misses).mean() < np.square(alone).mean()


@pytest.mark.parametrize("step", [54, 81, 162])
def test_a_decoder_alone_is_foretold_widely_but_truly(step):
    told = [(foretell(cut(run, step), END, rate=RATE).interval(0.9), run["curve"][-1][1]) for run in RUNS]
    assert np.mean([low <= end <= high for (low, high), end in told]) >= 0.8


def test_a_regression_is_students_t():
    """Losses now and at the end of five others, in closed form but for the prior of the slope."""
    pairs = [(3.0, 2.6), (3.2, 2.7), (2.9, 2.5), (3.4, 3.0), (3.1, 2.55)]
    ended = [[(10, now), (100, end)] for now, end in pairs]
    found = foretell([(10, 3.12)], 100, ended=ended)
    now, end = np.array(pairs).T
    slope = 1 + ((now - now.mean()) @ (end - now)) / (((now - now.mean()) ** 2).sum() * 1.2)
    misses = end - end.mean() - slope * (now - now.mean())
    freedom = 4 - 1 / 1.2
    leverage = 1 / 5 + (3.12 - now.mean()) ** 2 / (((now - now.mean()) ** 2).sum() * 1.2)
    spread = np.sqrt(misses @ misses / freedom * (1 + leverage))
    exact = t(freedom, end.mean() + slope * (3.12 - now.mean()), spread)
    assert found.mean == pytest.approx(exact.mean())
    for level in (0.5, 0.8, 0.9):
        assert found.interval(level) == pytest.approx(exact.interval(level), abs=0.04 * spread)


def test_a_mixture_is_read_as_one():
    two = Foretold(np.array([0.25, 0.75]), np.array([1.0, 3.0]), np.array([0.5, 1.0]))
    assert two.mean == 2.5
    assert two.deviation == pytest.approx(np.sqrt(0.25 * (0.25 + 2.25) + 0.75 * (1 + 0.25)))
    assert two.below(2) == pytest.approx(0.25 * norm.cdf(2) + 0.75 * norm.cdf(-1))
    low, high = two.interval(0.5)
    assert (two.below(low), two.below(high)) == pytest.approx((0.25, 0.75))


def test_equal_and_few_curves_are_no_error():
    same = [[(10, 2.0), (100, 1.5)]] * 4
    assert foretell([(10, 2.0)], 100, ended=same).mean == pytest.approx(1.5)
    low, high = foretell([(10, 2.0), (20, 2.0)], 100).interval()
    assert low < 2 < high
    with pytest.raises(ValueError, match="one point"):
        foretell([(10, 2.0)], 100, ended=same[:3])


def test_a_forecast_takes_milliseconds():
    curve = cut(RUNS[0], 162)
    start = time.process_time()
    for _ in range(5):
        foretell(curve, END, rate=RATE)
    assert (time.process_time() - start) / 5 < 0.05
