"""Where candidates of a study come from, when it is no sampler of Optuna: searches over encoded candidates.

A source is an iterator of members that are worth a trial, the best first; it goes on for as long as they are refused.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.figures import Figures
from search.frontier.evolution import evolve, ranks
from search.frontier.frontier import Frontier, batch_size
from search.frontier.members import Members
from search.objectives import Objective
from spaces.candidate import Candidate
from spaces.encoding import decode, encode
from spaces.neighbours import neighbours
from spaces.space import Space
from spaces.variation import Variation

Reals = NDArray[np.float64]

AHEAD = 16  # proposals of the frontier that are made at once when those of a batch were refused
POPULATION, TOURNAMENT = 32, 8  # of regularised evolution
RARE = 0.02  # share of random members that keep the bounds, below which they are searched for
POOL, GENERATIONS = 256, 40  # of the evolution towards the bounds


@dataclass(frozen=True)
class History:
    """What a study knows of its candidates.

    Attributes:
        vectors: of those that have ended, ``[n, slots]``.
        values: their objectives in the study's order, all minimised, ``[n, objectives]``; NaN where one failed.
        pending: vectors of those that are being trained.
    """

    vectors: Reals
    values: Reals
    pending: Reals


class Sources:
    """The sources of one study.

    Args:
        objectives: in the order of the history's columns.
    """

    def __init__(self, space: Space, figures: Figures, objectives: Sequence[Objective]) -> None:
        self.space, self.figures, self.objectives = space, figures, [objective.name for objective in objectives]
        self.signs = {o.name: -1.0 if o.direction == "maximize" else 1.0 for o in objectives}
        self.reference = {o.name: self.signs[o.name] * o.worst for o in objectives if o.worst is not None}
        self.frontier: Frontier | None = None  # the last that proposed
        self._batch: tuple[int, list[Candidate], Iterator[Candidate]] = -1, [], iter(())  # its seed; made; to come

    @cached_property
    def members(self) -> Bounded:
        """The problem that the frontier solves."""
        return Bounded(self.space, self.objectives, self.figures)

    @cached_property
    def _untold(self) -> Frontier:
        return Frontier(self.members, 0, reference=self.reference)

    @property
    def survey(self) -> dict[str, Any] | None:
        """How many random members were ``drawn`` before anything was proposed, and what ``refused`` how many."""
        return self.members.survey if "members" in self.__dict__ else None

    def learned(self, candidate: Candidate) -> dict[str, Any]:
        """What the frontier has learned, where it has proposed: JSON data to keep with a candidate.

        ``predicted``: its objectives, the middle and the ends of an interval; ``surrogates``: how they were foretold.
        """
        if self.frontier is None or not self.frontier.surrogates:
            return {}
        predicted = {}
        for name, values in self.frontier.foretell(encode(candidate)[None]).items():
            middle, low, high = (self.signs[name] * float(value) for value in values[0])
            predicted[name] = [middle, *sorted((low, high))]
        kept = ("form", "rank", "rank_of_parameters")
        surrogates = {name: {key: told[key] for key in kept} for name, told in self.frontier.report.items()}
        return {"predicted": predicted, "surrogates": surrogates}

    def of(self, name: str) -> Callable[[History, int], Iterator[Candidate]]:
        """The source of that name: from a history and a seed to candidates."""
        return {
            "frontier": self._frontier,
            "evolution": self._evolution,
            "local": self._local,
            "grid": self._grid,
            "random": self._random,
        }[name]

    def _frontier(self, history: History, seed: int) -> Iterator[Candidate]:
        """`search.frontier`: what may enlarge the front most, by what was known when its batch began.

        Args:
            seed: of the batch; while it is the same, so are the proposals.
        """
        if self._batch[0] != seed:
            self._batch = seed, [], self._improving(history, seed)
        _, made, more = self._batch
        yield from list(made)
        for one in more:
            made.append(one)
            yield one

    def _improving(self, history: History, seed: int) -> Iterator[Candidate]:
        self.frontier = frontier = self._untold.again(seed)
        if not len(frontier.random):
            return
        paid = [self.objectives.index(name) for name in frontier.paid]
        frontier.tell(history.vectors, history.values[:, paid])
        pending = history.pending
        for count in itertools.chain([batch_size(len(history.vectors) + len(pending))], itertools.repeat(AHEAD)):
            found = frontier.ask(count, pending)
            if not len(found):
                return
            for vector in found:
                yield decode(self.space, vector)
            pending = np.concatenate([pending, found])

    def _evolution(self, history: History, seed: int) -> Iterator[Candidate]:
        """Regularised evolution (Real et al. 2019, arXiv 1802.01548): the youngest live, a sample's best is mutated."""
        generator = np.random.default_rng([seed, len(history.vectors), len(history.pending)])
        known = np.isfinite(history.values).all(axis=1)
        vectors, values = history.vectors[known][-POPULATION:], history.values[known][-POPULATION:]
        variation = Variation(self.space)
        while len(history.vectors) + len(history.pending) >= POPULATION and len(vectors):
            sample = generator.choice(len(vectors), min(TOURNAMENT, len(vectors)), replace=False)
            best = sample[int(np.argmin(ranks(values[sample])))]
            yield decode(self.space, variation.mutate(generator, vectors[best : best + 1])[0])
        yield from self._random(history, seed)

    def _local(self, history: History, seed: int) -> Iterator[Candidate]:
        """Local search (White et al. 2021, arXiv 2005.02960): neighbours of members of the front."""
        random = Random(f"{seed} {len(history.vectors)} {len(history.pending)}")
        known = np.isfinite(history.values).all(axis=1)
        front = history.vectors[known][ranks(history.values[known]) == 0] if known.any() else history.vectors[:0]
        for place in random.sample(range(len(front)), len(front)):
            around = list(neighbours(decode(self.space, front[place]), reach=1))
            yield from random.sample(around, len(around))
        yield from self._random(history, seed)

    def _grid(self, history: History, seed: int) -> Iterator[Candidate]:
        """All members in their order."""
        there = {vector.tobytes() for vector in np.concatenate([history.vectors, history.pending])}
        return (one for one in self.space.members() if encode(one).tobytes() not in there)

    def _random(self, history: History, seed: int) -> Iterator[Candidate]:
        random = Random(f"{seed} {len(history.vectors)} {len(history.pending)}")
        while True:
            yield self.space.draw(random)


class Bounded(Members):
    """Members that keep the bounds wherever draws, or an evolution towards the bounds, meet any."""

    def __init__(self, space: Space, objectives: list[str], figures: Figures) -> None:
        self.bounds, self.survey = figures, dict[str, Any]()
        super().__init__(space, objectives, figures.cheap, allowed=figures.allowed)

    def draw(self, generator: np.random.Generator, count: int) -> Reals:
        drawn = super().draw(generator, count)
        kept = drawn[self.feasible(drawn)]
        self.survey = self.survey or {"drawn": len(drawn), "refused": dict(self.bounds.refusals(drawn))}
        if len(kept) >= RARE * len(drawn):
            return drawn
        near, excess = evolve(
            drawn, lambda vectors: self.bounds.excess(vectors)[:, None], self.mutate, self.cross, generator,
            population=POOL, offspring=POOL, generations=GENERATIONS,
        )  # fmt: skip
        found = np.concatenate([kept, near[excess[:, 0] == 0.0]])
        return found if len(found) else drawn
