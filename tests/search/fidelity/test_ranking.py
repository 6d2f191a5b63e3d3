"""The order in which candidates are kept, against independent sorts."""

from itertools import combinations

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from search.fidelity.ranking import order

POINTS = st.integers(1, 3).flatmap(
    lambda m: arrays(np.float64, st.tuples(st.integers(1, 12), st.just(m)), elements=st.integers(0, 6).map(float))
)


@given(POINTS)
def test_fronts_follow_each_other_as_optuna_sorts_them(points):
    ranks = optuna.study._multi_objective._fast_non_domination_rank(points)
    found = order(points)
    assert sorted(found) == list(range(len(points))) and order(points, first=2) == found[:2]
    assert list(ranks[found]) == sorted(ranks)


@pytest.mark.parametrize("seed", range(5))
def test_a_part_of_a_front_covers_it(seed):
    """The first k are within twice the least radius with which any k points cover the front (Gonzalez 1985)."""
    x = np.sort(np.random.default_rng(seed).random(9))
    points = np.stack([x, 1 - np.sqrt(x)], 1)
    scaled = (points - points.min(0)) / np.ptp(points, axis=0)
    distance = np.linalg.norm(scaled[:, None] - scaled[None], axis=-1)
    found = order(points)
    for k in (2, 3, 4):
        radius = distance[found[:k]].min(0).max()
        assert radius <= 2 * min(distance[list(some)].min(0).max() for some in combinations(range(9), k)) + 1e-12


def test_noise_keeps_what_may_be_on_the_front():
    loss_and_cost = [(2.00, 10.0), (2.03, 11.0), (2.01, 30.0), (1.90, 40.0), (2.30, 9.0), (2.50, 50.0), (2.10, 12.0)]
    assert order(loss_and_cost)[:3] == [3, 4, 0]
    noisy = order(loss_and_cost, noise=(0.03, 0))
    assert noisy[:5] == [3, 4, 0, 2, 1]  # 0.01 and 0.03 above the front, in units of a difference's deviation 0.042
    assert set(noisy[5:]) == {5, 6} and noisy[5] == 6
    assert order([(2.00, 1.0), (2.01, 1.0)], noise=(0, 0)) == [0, 1]


def test_one_objective_is_sorted():
    assert order([(3.0,), (1.0,), (2.0,), (1.0,)], noise=(0.5,)) == [1, 3, 2, 0]
    assert order([]) == []
