from __future__ import annotations

import numpy as np

from search.cost.table import Table
from search.frontier import Frontier, Members
from search.frontier.evolution import distinct
from spaces.encoding import decode, sample_encoded
from spaces.space import load


def test_members_of_a_space_keep_its_constraints_and_the_bounds() -> None:
    space = load("hw_gpt_s")
    table = Table(space)

    def figures(vectors: np.ndarray) -> dict[str, np.ndarray]:
        prices = table.price(vectors)
        return {"parameters": prices.parameters.astype(float), "flops": prices.forward.astype(float)}

    def allowed(vectors: np.ndarray) -> np.ndarray:
        return figures(vectors)["parameters"] <= 1e8

    asked: list[np.ndarray] = []
    frontier = Frontier(Members(space, ("loss", "flops"), figures, allowed=allowed), 0)
    for _ in range(5):
        some = frontier.ask(4)
        asked.append(some)
        frontier.tell(some, 3 + 1e3 / np.sqrt(figures(some)["parameters"])[:, None])
    together = np.concatenate(asked)
    assert len(distinct(together)) == 20
    assert allowed(together).all()
    for vector in together:
        decode(space, vector)
    assert not allowed(sample_encoded(space, np.random.default_rng(0), 200)).all()


def test_only_what_is_listed_is_proposed_and_all_of_it_in_the_end() -> None:
    space = load("hw_gpt_s")
    listed = sample_encoded(space, np.random.default_rng(0), 30)
    problem = Members(space, ("loss",), lambda vectors: {"parameters": vectors[:, 0] + 1}, listed=listed)
    frontier = Frontier(problem, 0)
    while len(some := frontier.ask(4)):
        frontier.tell(some, np.nansum(some, axis=1)[:, None])
    assert len(distinct(frontier.vectors)) == len(frontier.vectors) == len(distinct(listed))
    assert len(distinct(np.concatenate([listed, frontier.vectors]))) == len(distinct(listed))
