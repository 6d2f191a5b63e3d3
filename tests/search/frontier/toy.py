"""A problem with 6^6 members of which the front is known: digits that cost their sum, and lose what they are worth."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from search.frontier.features import Features

Reals = NDArray[np.float64]

WORTH = np.array([1.0, 3.0, 2.0, 0.5, 4.0, 1.5])
DIGITS, SLOTS = 6, 6


class Digits:
    objectives = ("loss", "cost")
    listed = None

    def __init__(self, digits: int = DIGITS, slots: int = SLOTS) -> None:
        self.digits, self.slots = digits, slots
        self.asked: list[Reals] = []

    def all(self) -> Reals:
        return np.array(list(itertools.product(range(self.digits), repeat=self.slots)), dtype=np.float64)

    def draw(self, generator: np.random.Generator, count: int) -> Reals:
        return generator.integers(self.digits, size=(count, self.slots)).astype(np.float64)

    def mutate(self, generator: np.random.Generator, vectors: Reals) -> Reals:
        moved = generator.random(vectors.shape) < 1.5 / self.slots
        return np.where(moved, self.draw(generator, len(vectors)), vectors)

    def cross(self, generator: np.random.Generator, first: Reals, second: Reals) -> Reals:
        return np.where(generator.random(first.shape) < 0.5, first, second)

    def cheap(self, vectors: Reals) -> Mapping[str, Reals]:
        return {"cost": vectors.sum(axis=1) + 0.1 * vectors[:, 0], "parameters": 10 + vectors.sum(axis=1)}

    def feasible(self, vectors: Reals) -> NDArray[np.bool_]:
        return vectors[:, 0] + vectors[:, 1] <= 2 * self.digits - 5

    def features(self, vectors: Reals) -> Features:
        costs = np.log(self.cheap(vectors)["parameters"])[:, None] - 3
        return Features(costs, costs, vectors[:, :0], (vectors - 2.5) / 2)

    def loss(self, vectors: Reals) -> Reals:
        found: Reals = 5 + 10 / (1 + np.sqrt(vectors) @ WORTH[: self.slots])
        return found

    def points(self, vectors: Reals) -> Reals:
        return np.column_stack([self.loss(vectors), self.cheap(vectors)["cost"]])
