from __future__ import annotations

import numpy as np
import pytest

from search.frontier import Frontier, batch_size
from search.frontier.evolution import distinct
from search.frontier.hypervolume import hypervolume
from tests.search.frontier.toy import Digits


def search(problem: Digits, seed: int, count: int) -> tuple[Frontier, np.ndarray]:
    frontier = Frontier(problem, seed)
    while len(frontier.vectors) < count:
        asked = frontier.ask(batch_size(len(frontier.vectors)))
        if not len(asked):
            break
        frontier.tell(asked, problem.loss(asked)[:, None])
    return frontier, frontier.vectors


def test_better_than_random_and_close_to_the_best() -> None:
    problem = Digits()
    reference = np.array([8.0, 27.0])
    everything = problem.all()
    best = hypervolume(problem.points(everything[problem.feasible(everything)]), reference)
    frontier, found = search(problem, 0, 40)
    random = hypervolume(problem.points(everything[:: len(everything) // 40]), reference)
    assert hypervolume(problem.points(found), reference) > 0.95 * best > random
    assert frontier.report["loss"]["form"] == "structured"
    assert frontier.report["loss"]["rank"] > frontier.report["loss"]["rank_of_parameters"]


def test_no_member_twice_and_none_that_is_forbidden_until_there_are_no_more() -> None:
    problem = Digits(digits=4, slots=3)
    everything = problem.all()
    legal = int(problem.feasible(everything).sum())
    assert legal < len(everything)
    frontier, found = search(problem, 1, len(everything))
    assert len(found) == len(distinct(found)) == legal
    assert problem.feasible(found).all()
    assert len(frontier.ask(3)) == 0


def test_proposals_follow_from_the_seed_and_what_was_told() -> None:
    problem = Digits()
    frontier, found = search(problem, 2, 20)
    again = Frontier(problem, 2)
    again.tell(found, problem.loss(found)[:, None])
    asked = frontier.ask(4)
    assert (again.ask(4) == asked).all()
    other = Frontier(problem, 3)
    other.tell(found, problem.loss(found)[:, None])
    assert not np.array_equal(other.ask(4), asked)


def test_every_second_of_the_first_is_random_also_one_by_one() -> None:
    """What lies along the front of cost and size is the same for every seed where all members are listed."""
    problem = Digits(digits=4, slots=4)
    problem.listed = problem.all()
    problem.draw = lambda generator, count: problem.listed[generator.permutation(len(problem.listed))[:count]]
    found = []
    for seed in range(5):
        frontier = Frontier(problem, seed)
        for _ in range(2):
            asked = frontier.ask()
            frontier.tell(asked, problem.loss(asked)[:, None])
        found.append(frontier.vectors)
    first, second = ({tuple(vectors[place]) for vectors in found} for place in (0, 1))
    assert len(first) == 1 and len(second) > 2


@pytest.mark.parametrize("told", [0, 20])
def test_what_is_pending_is_not_proposed_again(told: int) -> None:
    problem = Digits()
    frontier, _ = search(problem, 4, told)
    first = frontier.ask(4)
    second = frontier.ask(4, pending=first)
    assert len(distinct(np.vstack([frontier.vectors, first, second]))) == len(frontier.vectors) + 8


def test_failed_evaluations_are_not_learned_and_not_repeated() -> None:
    problem = Digits()
    frontier, found = search(problem, 5, 16)
    asked = frontier.ask(4)
    frontier.tell(asked, np.full((4, 1), np.nan))
    more = frontier.ask(8)
    assert len(distinct(np.vstack([found, asked, more]))) == 28


def test_all_objectives_may_be_cheap_or_paid() -> None:
    class Known(Digits):
        def cheap(self, vectors: np.ndarray) -> dict[str, np.ndarray]:
            return {**super().cheap(vectors), "loss": self.loss(vectors)}

    class Unknown(Digits):
        def cheap(self, vectors: np.ndarray) -> dict[str, np.ndarray]:
            return {"parameters": super().cheap(vectors)["parameters"]}

        def features(self, vectors: np.ndarray):  # noqa: ANN201
            return Digits().features(vectors)

    reference = np.array([8.0, 27.0])
    known = Frontier(Known(), 0)
    asked = known.ask(24)
    assert known.paid == []
    unknown = Frontier(Unknown(), 0)
    assert unknown.paid == ["loss", "cost"]
    for _ in range(8):
        some = unknown.ask(4)
        unknown.tell(some, Digits().points(some))
    of_known, of_unknown = (hypervolume(Digits().points(x), reference) for x in (asked, unknown.vectors))
    assert of_known > of_unknown > 0.9 * of_known


def test_three_objectives_of_which_one_is_learned() -> None:
    class Three(Digits):
        objectives = ("loss", "cost", "spread")

        def cheap(self, vectors: np.ndarray) -> dict[str, np.ndarray]:
            return {**super().cheap(vectors), "spread": vectors.std(axis=1)}

    problem = Three()
    _, found = search(problem, 6, 24)
    random = problem.draw(np.random.default_rng(0), 24)
    reference = np.array([8.0, 27.0, 2.0])
    volumes = [hypervolume(np.column_stack([problem.points(x), x.std(axis=1)]), reference) for x in (found, random)]
    assert volumes[0] > 1.2 * volumes[1]


def test_a_reference_bounds_where_the_front_is_sought() -> None:
    problem = Digits()
    told, whole = Frontier(problem, 7, reference={"loss": 6.0, "cost": 15.0}), Frontier(problem, 7)
    for frontier in (told, whole):
        for _ in range(6):
            some = frontier.ask(4)
            frontier.tell(some, problem.loss(some)[:, None])
    inside = [int((problem.points(frontier.vectors[8:]) < [6.0, 15.0]).all(axis=1).sum()) for frontier in (told, whole)]
    assert inside[0] > inside[1]
