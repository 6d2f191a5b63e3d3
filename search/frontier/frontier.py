"""Proposes what to evaluate next: evolution on what is known and on what is foretold, then hypervolume improvement.

Objectives are minimised. The *cheap* ones are known of any candidate; the *paid* ones only of what was evaluated, and a
surrogate of each foretells the rest. A proposal is a function of the seed and of what was told, nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from search.frontier.acquisition import batch
from search.frontier.evolution import distinct, evolve, survivors
from search.frontier.features import Features
from search.frontier.hypervolume import non_dominated
from search.frontier.surrogates import Surrogate, choose

Reals = NDArray[np.float64]

INITIAL = 8  # evaluations before the surrogates are asked
RANDOM = 1024  # members that begin an evolution, twice
POPULATION, OFFSPRING, GENERATIONS = 128, 256, 10
DEVIATIONS = 1.0  # of the bound that evolution lowers
WORLDS, FEW_WORLDS, FRONT = 96, 16, 96  # draws; those of three and more objectives; observed points that they hold
TRIES = 8  # draws of random members, before there are no more


class Problem(Protocol):
    """What is searched. Vectors are ``[n, slots]``, NaN where a choice is not reached.

    Attributes:
        objectives: their names; those that `cheap` gives are never paid for.
        listed: all members, where they are few; None where they are drawn and varied.
    """

    objectives: Sequence[str]
    listed: Reals | None

    def draw(self, generator: np.random.Generator, count: int) -> Reals:
        """Random members; fewer where there are no more."""

    def mutate(self, generator: np.random.Generator, vectors: Reals) -> Reals:
        """A variation of each member."""

    def cross(self, generator: np.random.Generator, first: Reals, second: Reals) -> Reals:
        """A mixture of each pair of members."""

    def cheap(self, vectors: Reals) -> Mapping[str, Reals]:
        """Figures that are known of any member, by name."""

    def feasible(self, vectors: Reals) -> NDArray[np.bool_]:
        """Whether a member keeps the hard constraints."""

    def features(self, vectors: Reals) -> Features:
        """What a surrogate sees."""


def batch_size(evaluated: int) -> int:
    """How many proposals to take from one model."""
    return 4 if evaluated < 50 else 8


def batch_begin(evaluated: int) -> int:
    """How many evaluations the batch that the next proposal belongs to goes by."""
    begin = 0
    while begin + batch_size(begin) <= evaluated:
        begin += batch_size(begin)
    return begin


class Frontier:
    """The search of one problem.

    Args:
        reference: what nobody wants to be worse than, by objective, as the hypervolume counts only what is better; by
            default the worst value of the objective on the front that is foretold.

    Attributes:
        surrogates: of the paid objectives, as of the last proposal.
    """

    def __init__(self, problem: Problem, seed: int, *, reference: Mapping[str, float] | None = None) -> None:
        self.problem, self.seed, self.given = problem, seed, dict(reference or {})
        self.surrogates: dict[str, Surrogate] = {}
        drawn = self._draw(np.random.default_rng(0))
        self.known = set(problem.cheap(drawn))
        self.paid = [name for name in problem.objectives if name not in self.known]
        self.random = self._legal(drawn)
        self.vectors = np.zeros((0, self.random.shape[1]))
        self.values = np.zeros((0, len(self.paid)))

    @property
    def report(self) -> dict[str, Any]:
        """How well the surrogates foretell, by objective, as of the last proposal (`Surrogate.report`)."""
        return {name: surrogate.report for name, surrogate in self.surrogates.items()}

    def foretell(self, vectors: Reals) -> dict[str, Reals]:
        """Paid objectives of members as of the last proposal: by name ``[n, 3]``, the middle and an interval."""
        features = self.problem.features(vectors)
        return {name: surrogate.interval(features) for name, surrogate in self.surrogates.items()}

    def again(self, seed: int) -> Frontier:
        """A search of the same problem with another seed, told nothing."""
        other = copy(self)
        other.seed, other.surrogates = seed, {}
        other.vectors, other.values = self.vectors[:0], self.values[:0]
        return other

    def tell(self, vectors: Reals, values: Reals) -> None:
        """Takes evaluations: paid objectives ``[n, paid]`` in their order, NaN where one failed."""
        self.vectors = np.concatenate([self.vectors, vectors])
        self.values = np.concatenate([self.values, np.reshape(values, (len(vectors), len(self.paid)))])

    def ask(self, count: int = 1, pending: Reals | None = None) -> Reals:
        """Members to evaluate next, none of them seen; fewer when there are no more.

        Args:
            pending: what is being evaluated.
        """
        pending = self.vectors[:0] if pending is None else pending
        generator = np.random.default_rng([self.seed, len(self.vectors), len(pending)])
        seen = np.concatenate([self.vectors, pending])
        finite = np.asarray(np.isfinite(self.values).all(axis=1))
        found = self.vectors[:0]
        if not self.paid or finite.sum() >= INITIAL:
            found = self._improving(generator, finite, pending, seen, count)
        elif len(seen) < 2 * INITIAL:
            found = self._first(generator, seen, count)
        return self._filled(generator, found, seen, count)

    def _improving(
        self, generator: np.random.Generator, finite: NDArray[np.bool_], pending: Reals, seen: Reals, count: int
    ) -> Reals:
        known = self.vectors[finite]
        self.surrogates = self._learned(known, self.values[finite])
        seeds = np.concatenate([known, pending, self.random, self._legal(self._draw(generator))])
        pool, points = self._evolve(generator, seeds, self._bound)
        pool = pool[self._unseen(pool, seen)]
        if not len(pool):
            return pool
        # Observed points that may be on the front, what is pending, and the candidates, all in the same worlds.
        legal = self._legal(known)
        front = legal[survivors(self._bound(legal), FRONT)]
        together = np.concatenate([front, pending, pool])
        worlds = self._worlds(generator, together)
        reference = self._reference(worlds.mean(axis=0))
        ideal = worlds.min(axis=(0, 1))
        worlds = (worlds - ideal) / np.maximum(reference - ideal, 1e-12)
        split = len(together) - len(pool)
        return pool[batch(worlds[:, :split], worlds[:, split:], np.ones(len(reference)), count)]

    def _learned(self, known: Reals, values: Reals) -> dict[str, Surrogate]:
        if not self.paid:
            return {}
        features, cheap = self.problem.features(known), self.problem.cheap(known)
        costs = next((cheap[name] for name in self.problem.objectives if name in cheap), None)
        return {name: choose(features, column, costs) for name, column in zip(self.paid, values.T, strict=True)}

    def _first(self, generator: np.random.Generator, seen: Reals, count: int) -> Reals:
        """Half of them along the front of the cheap objectives and of size in place of quality, the others random."""
        if "parameters" not in self.known or len(self.problem.objectives) == 1:
            return self.vectors[:0]

        def score(vectors: Reals) -> Reals:
            cheap = self.problem.cheap(vectors)
            costs = [cheap[name] for name in self.problem.objectives if name in cheap] or [cheap["parameters"]]
            return self._barred(vectors, np.column_stack([*costs, -np.asarray(cheap["parameters"], dtype=np.float64)]))

        pool, points = self._evolve(generator, self.random, score)
        new = self._unseen(pool, seen)
        pool, points = pool[new], points[new]
        if not len(pool):
            return pool
        known = score(seen) if len(seen) else points[:0]
        half = (len(seen) + count + 1) // 2 - (len(seen) + 1) // 2  # of all, however few are asked for at a time
        return pool[batch(known[None], points[None], points.max(axis=0), half)]

    def _filled(self, generator: np.random.Generator, found: Reals, seen: Reals, count: int) -> Reals:
        for _ in range(TRIES if self.problem.listed is None else 1):
            if len(found) >= count:
                break
            drawn = self._legal(self._draw(generator))
            drawn = drawn[self._unseen(drawn, np.concatenate([seen, found]))]
            found = np.concatenate([found, drawn[: count - len(found)]])
        return found[:count]

    def _draw(self, generator: np.random.Generator) -> Reals:
        listed = self.problem.listed
        return self.problem.draw(generator, RANDOM if listed is None else len(listed))

    def _evolve(self, generator: np.random.Generator, seeds: Reals, score: Any) -> tuple[Reals, Reals]:
        return evolve(
            seeds, score, self.problem.mutate, self.problem.cross, generator,
            population=POPULATION, offspring=OFFSPRING,
            generations=GENERATIONS if self.problem.listed is None else 0,
        )  # fmt: skip

    def _bound(self, vectors: Reals) -> Reals:
        if not len(vectors):
            return np.zeros((0, len(self.problem.objectives)))
        features, cheap = self.problem.features(vectors), self.problem.cheap(vectors)
        columns = [
            self.surrogates[name].bound(features, DEVIATIONS) if name in self.surrogates else cheap[name]
            for name in self.problem.objectives
        ]
        return self._barred(vectors, np.column_stack(columns))

    def _worlds(self, generator: np.random.Generator, vectors: Reals) -> Reals:
        features, cheap = self.problem.features(vectors), self.problem.cheap(vectors)
        objectives = len(self.problem.objectives)
        worlds = (WORLDS if objectives < 3 else FEW_WORLDS) if self.paid else 1
        found = np.empty((worlds, len(vectors), objectives))
        for column, name in enumerate(self.problem.objectives):
            if name in self.surrogates:
                normal = generator.standard_normal(found.shape[:2])
                found[:, :, column] = self.surrogates[name].draws(features, normal)
            else:
                found[:, :, column] = cheap[name]
        return found

    def _reference(self, points: Reals) -> Reals:
        """What was given, else the worst of the front of some points."""
        front = points[non_dominated(points)]
        best, worst = front.min(axis=0), front.max(axis=0)
        worst = np.where(best < worst, worst, points.max(axis=0))  # a front of one point has no extent
        return np.array([self.given.get(name, of) for name, of in zip(self.problem.objectives, worst, strict=True)])

    def _barred(self, vectors: Reals, points: Reals) -> Reals:
        return np.where(self.problem.feasible(vectors)[:, None], points, np.inf)

    def _legal(self, vectors: Reals) -> Reals:
        return vectors[self.problem.feasible(vectors)] if len(vectors) else vectors

    def _unseen(self, vectors: Reals, seen: Reals) -> NDArray[np.intp]:
        rows = distinct(np.concatenate([seen, vectors]))
        return rows[rows >= len(seen)] - len(seen)
