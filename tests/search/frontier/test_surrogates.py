from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from search.frontier.features import Features
from search.frontier.surrogates import STRATUM, choose, rank_within, strata_of


def features(count: int, seed: int = 0) -> Features:
    rounds = np.random.default_rng(seed).standard_normal((count, 1, 6))
    total = rounds.sum(axis=2)
    size = total / 3 + 0.3 * np.random.default_rng(seed + 1).standard_normal((count, 1))
    return Features(size, size, total, np.zeros((count, 0)), (rounds,))


def test_effects_of_layers_are_found_where_there_are_any() -> None:
    f = features(60)
    effects = np.array([3.0, -2.0, 1.0, 0.0, 0.0, 2.0])
    surrogate = choose(f, np.exp(0.1 * f.rounds[0][:, 0] @ effects), f.totals[:, 0])
    assert surrogate.form == "structured"
    assert surrogate.logarithmic
    assert surrogate.report["rank"] > 0.9 > surrogate.report["rank_of_parameters"]
    new = features(40, seed=7)
    truth = np.exp(0.1 * new.rounds[0][:, 0] @ effects)
    assert spearmanr(surrogate.bound(new, 0.0), truth).statistic > 0.98
    drawn = surrogate.draws(new, np.random.default_rng(0).standard_normal((400, 40)))
    assert drawn.mean(axis=0) == pytest.approx(truth, rel=0.15)


def test_what_only_size_decides_is_left_to_parameters() -> None:
    f = features(48)
    surrogate = choose(f, -(f.size[:, 0] ** 3) - 40, f.totals[:, 0])
    assert surrogate.form == "parameters"
    assert surrogate.report["rank_of_parameters"] == pytest.approx(1)


def test_a_surrogate_that_ranks_no_better_steps_aside() -> None:
    f = features(48)
    noise = np.random.default_rng(3).standard_normal(48)
    surrogate = choose(f, -f.size[:, 0] + 0.7 * noise, f.totals[:, 0])
    assert surrogate.report["rank"] <= surrogate.report["rank_of_parameters"] or surrogate.form != "parameters"
    assert surrogate.report["noise"] == pytest.approx(0.7, rel=0.3)


def test_ranks_within_strata_are_spearmans() -> None:
    generator = np.random.default_rng(4)
    costs, a, b = generator.random((3, 4 * STRATUM))
    strata = strata_of(costs, len(costs))
    order = np.argsort(costs)
    each = [order[at : at + STRATUM] for at in range(0, len(costs), STRATUM)]
    assert all(len(set(strata[one])) == 1 for one in each)
    assert rank_within(a, b, strata) == pytest.approx(np.mean([spearmanr(a[one], b[one]).statistic for one in each]))
    assert rank_within(a, np.ones(len(a)), strata) == 0
