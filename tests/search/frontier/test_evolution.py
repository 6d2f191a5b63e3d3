from __future__ import annotations

import numpy as np
import pytest

from search.frontier.evolution import _ranks, crowding, distinct, evolve, ranks, survivors
from search.frontier.hypervolume import non_dominated
from tests.search.frontier.toy import Digits


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_ranks_peel_one_front_after_another(objectives: int) -> None:
    points = np.random.default_rng(objectives).integers(0, 9, (50, objectives)).astype(float)
    found = ranks(points)
    left = np.arange(50)
    for rank in range(found.max() + 1):
        front = non_dominated(points[left])
        assert set(left[front]) == set(np.flatnonzero(found == rank))
        left = left[~front]


def test_both_ways_to_rank_pairs_agree() -> None:
    points = np.random.default_rng(0).integers(0, 12, (80, 2)).astype(float)
    assert (ranks(points) == _ranks(points, 80)).all()


def test_ends_of_a_front_are_never_crowded() -> None:
    points = np.array([[0.0, 4.0], [1.0, 2.0], [1.5, 1.5], [4.0, 0.0]])
    found = crowding(points, np.zeros(4, dtype=int))
    assert np.isinf(found[[0, 3]]).all()
    assert found[1] == pytest.approx(1.5 / 4 + 2.5 / 4)
    assert survivors(points, 3).tolist() == [0, 3, 2]


def test_choices_that_are_not_reached_are_equal() -> None:
    vectors = np.array([[1.0, np.nan], [1.0, -np.nan], [-0.0, 2.0], [0.0, 2.0], [1.0, 0.0]])
    assert distinct(vectors).tolist() == [0, 2, 4]


def test_evolution_finds_the_front_and_keeps_the_bounds() -> None:
    problem = Digits()
    everything = problem.all()
    everything = everything[problem.feasible(everything)]
    best = problem.points(everything)
    best = best[non_dominated(best)]

    def score(vectors: np.ndarray) -> np.ndarray:
        return np.where(problem.feasible(vectors)[:, None], problem.points(vectors), np.inf)

    seeds = problem.draw(np.random.default_rng(1), 100)
    vectors, points = evolve(
        seeds,
        score,
        problem.mutate,
        problem.cross,
        np.random.default_rng(2),
        population=128,
        offspring=128,
        generations=40,
    )
    assert problem.feasible(vectors).all()
    assert len(distinct(vectors)) == len(vectors)
    assert score(vectors) == pytest.approx(points)
    found = {tuple(point) for point in points.round(9)}
    assert len(found & {tuple(point) for point in best.round(9)}) >= 0.9 * len(best)
    # 128 + 40 * 128 of 46,656 members were seen
