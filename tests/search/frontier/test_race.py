"""The score of `benchmarks.frontier`."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from optuna._hypervolume import compute_hypervolume

from benchmarks.hwgpt import SAMPLE, read, vectors
from benchmarks.hwgpt_front import archs_of, best_of


def test_the_best_choice_of_points_is_that_of_trying_all() -> None:
    points = np.random.default_rng(0).random((11, 2)) * 1.1
    for count in (1, 2, 3, 4):
        volumes = []
        for chosen in combinations(points, count):
            inside = np.array(chosen)[(np.array(chosen) < 1).all(axis=1)]
            volumes.append(compute_hypervolume(inside, np.ones(2)) if len(inside) else 0.0)
        assert best_of(points, [count])[count] == pytest.approx(max(volumes))


def test_architectures_come_back_from_vectors() -> None:
    archs, _ = read(SAMPLE)
    assert (archs_of(vectors(archs)) == archs).all()
