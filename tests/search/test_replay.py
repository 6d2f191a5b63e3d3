"""Searches of trained decoders by replay (`benchmarks.replay`): what is scored, and what a study finds."""

from __future__ import annotations

import numpy as np
import pytest
from optuna._hypervolume import compute_hypervolume

from benchmarks import trained
from benchmarks.replay import ROWS, Flat, Table, optunas, run
from search.sources import History


@pytest.fixture(scope="module")
def table() -> Table:
    return Table(trained.rows())


def test_the_score_is_the_hypervolume_up_to_the_nadir_of_the_front(table: Table) -> None:
    points = table.points("parameters")
    front = [p for p in points if not any((q <= p).all() and (q < p).any() for q in points)]
    nadir = np.max(front, axis=0)
    some = table.hashes[::5]
    inside = np.minimum(points, nadir)
    expected = compute_hypervolume(inside[::5], nadir) / compute_hypervolume(inside, nadir)
    assert table.score(set(some), "parameters") == pytest.approx(expected)
    assert table.score(set(table.hashes), "parameters") == 1 and table.score(set(), "parameters") == 0
    assert sum(table.compute.values()) == pytest.approx(1)


@pytest.mark.parametrize("name", ["random", "tpe", "nsga2"])
def test_a_flat_sampler_proposes_every_member_once(table: Table, name: str) -> None:
    source, found, slots = Flat(table, optunas(name, 0)), list[str](), table.listed.shape[1]
    vectors, values = np.zeros((0, slots)), np.zeros((0, 2))
    for seed in range(24):
        candidate = next(source(History(vectors, values, np.zeros((0, slots))), seed))
        number = table.hashes.index(candidate.spec.full)
        found.append(candidate.spec.full)
        vectors = np.concatenate([vectors, table.listed[number : number + 1]])
        values = np.concatenate([values, table.points("parameters")[number : number + 1]])
    assert len(set(found)) == 24


def test_a_part_of_the_compute_finds_most_of_the_front(table: Table) -> None:
    """A twentieth of the compute; as many whole trainings at random find 0.79 of it on average."""
    found = run(table, ROWS["frontier, rungs, parameters"], 1000, most=0.05)
    assert found["5%"] > 0.85
    assert 0 < found["ended"] < found["started"] / 2
