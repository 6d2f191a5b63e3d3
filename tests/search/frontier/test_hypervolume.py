from __future__ import annotations

import numpy as np
import pytest
from optuna._hypervolume import compute_hypervolume

from search.frontier.hypervolume import Improvements, hypervolume, non_dominated


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_hypervolume_is_that_of_optuna(objectives: int) -> None:
    points = np.random.default_rng(objectives).random((30, objectives)) * 1.3
    inside = points[(points < 1).all(axis=1)]
    assert hypervolume(points, np.ones(objectives)) == pytest.approx(compute_hypervolume(inside, np.ones(objectives)))


def test_hypervolume_of_a_line_is_its_closed_form() -> None:
    # n points on x + y = 1 leave n + 1 equal triangles below the reference (1, 1): a half less 1 / (2 (n + 1)).
    for count in (1, 5, 50):
        x = np.arange(1, count + 1) / (count + 1)
        assert hypervolume(np.column_stack([x, 1 - x]), np.ones(2)) == pytest.approx(0.5 * (1 - 1 / (count + 1)))


def test_what_is_beyond_the_reference_counts_nothing() -> None:
    assert hypervolume(np.array([[0.5, 1.0], [2.0, 0.0]]), np.ones(2)) == 0
    assert hypervolume(np.zeros((0, 3)), np.ones(3)) == 0


@pytest.mark.parametrize("objectives", [1, 2, 3])
@pytest.mark.parametrize("known", [0, 1, 12])
def test_improvements_are_differences_of_hypervolumes(objectives: int, known: int) -> None:
    generator = np.random.default_rng(known)
    front = generator.random((4, known, objectives)) * 1.2
    candidates = generator.random((4, 9, objectives)) * 1.2
    reference = np.ones(objectives)
    improvements = Improvements(front, candidates, reference)
    for _ in range(2):  # again after one was taken
        got = improvements.of_each()
        for world in range(4):
            before = hypervolume(front[world], reference)
            for number, candidate in enumerate(candidates[world]):
                after = hypervolume(np.vstack([front[world], candidate]), reference)
                assert got[world, number] == pytest.approx(after - before, abs=1e-12)
        improvements.add(3)
        front = np.concatenate([front, candidates[:, 3:4]], axis=1)


@pytest.mark.parametrize("objectives", [2, 3])
def test_non_dominated_by_comparing_all_pairs(objectives: int) -> None:
    points = np.random.default_rng(1).integers(0, 5, (60, objectives)).astype(float)
    kept = non_dominated(points)
    for number, point in enumerate(points):
        beaten = ((points <= point).all(axis=1) & (points < point).any(axis=1)).any()
        repeated = (points[:number] == point).all(axis=1).any()
        assert kept[number] == (not beaten and not repeated)
