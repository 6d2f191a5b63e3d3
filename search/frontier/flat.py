"""The problem of an ordinary Optuna study: good parameters, while all objectives are paid and nothing else is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from search.frontier.features import Features, Scale

Reals = NDArray[np.float64]

SAMPLE = 512  # random points that scale the features
STEP = 0.15  # deviation of a mutated number, of its range


class Parameters:
    """Points of a flat search space as a `search.frontier.Problem`: numbers, and positions of options."""

    listed: Reals | None = None

    def __init__(self, space: Mapping[str, BaseDistribution], objectives: int) -> None:
        self.axes = [(name, _axis(one)) for name, one in space.items()]
        self.objectives: Sequence[str] = [str(number) for number in range(objectives)]
        columns = self._columns(self.draw(np.random.default_rng(0), SAMPLE))
        self.scale = Scale(columns)

    def vector(self, params: Mapping[str, Any]) -> list[float]:
        """Parameters as a vector."""
        return [axis.distribution.to_internal_repr(params[name]) for name, axis in self.axes]

    def params(self, vector: Reals) -> dict[str, Any]:
        """A vector as parameters."""
        return {
            name: axis.distribution.to_external_repr(float(entry))
            for (name, axis), entry in zip(self.axes, vector, strict=True)
        }

    def draw(self, generator: np.random.Generator, count: int) -> Reals:
        return np.column_stack([axis.value(generator.random(count)) for _, axis in self.axes])

    def mutate(self, generator: np.random.Generator, vectors: Reals) -> Reals:
        count, width = len(vectors), len(self.axes)
        moved = generator.random((count, width)) < 1 / width
        moved[np.arange(count), generator.integers(width, size=count)] = True
        drawn = self.draw(generator, count)
        near = generator.random((count, width)) < 0.5
        noise = generator.standard_normal((count, width)) * STEP
        for column, (_, axis) in enumerate(self.axes):
            if axis.ordered:
                share = np.clip(axis.share(vectors[:, column]) + noise[:, column], 0.0, 1.0 - 1e-12)
                drawn[:, column] = np.where(near[:, column], axis.value(share), drawn[:, column])
        return np.where(moved, drawn, vectors)

    def cross(self, generator: np.random.Generator, first: Reals, second: Reals) -> Reals:
        return np.where(generator.random(first.shape) < 0.5, first, second)

    def cheap(self, vectors: Reals) -> Mapping[str, Reals]:
        return {}

    def feasible(self, vectors: Reals) -> NDArray[np.bool_]:
        return np.ones(len(vectors), dtype=np.bool_)

    def features(self, vectors: Reals) -> Features:
        none = np.zeros((len(vectors), 0))
        return Features(none, none, none, self.scale(self._columns(vectors)))

    def _columns(self, vectors: Reals) -> Reals:
        return np.concatenate([axis.columns(vectors[:, at]) for at, (_, axis) in enumerate(self.axes)], axis=1)


class Options:
    """An axis of options without an order."""

    ordered = False

    def __init__(self, distribution: CategoricalDistribution) -> None:
        self.distribution, self.count = distribution, len(distribution.choices)

    def value(self, share: Reals) -> Reals:
        return np.floor(share * self.count)

    def share(self, value: Reals) -> Reals:
        return (value + 0.5) / self.count

    def columns(self, value: Reals) -> Reals:
        return np.eye(self.count)[value.astype(np.intp)]


class Numbers:
    """An axis of numbers, evenly spread, or evenly in the logarithm."""

    ordered = True

    def __init__(self, distribution: IntDistribution | FloatDistribution) -> None:
        self.distribution = distribution
        self.step = distribution.step
        half = 0.5 * self.step if self.step else 0.0
        self.low, self.high = distribution.low - half, distribution.high + half
        if distribution.log:
            self.low, self.high = np.log(self.low), np.log(self.high)

    def value(self, share: Reals) -> Reals:
        found = self.low + share * (self.high - self.low)
        if self.distribution.log:
            found = np.exp(found)
        if self.step:
            found = self.distribution.low + np.rint((found - self.distribution.low) / self.step) * self.step
        return np.clip(found, self.distribution.low, self.distribution.high)

    def share(self, value: Reals) -> Reals:
        there = np.log(value) if self.distribution.log else value
        found: Reals = (there - self.low) / (self.high - self.low)
        return found

    def columns(self, value: Reals) -> Reals:
        return self.share(value)[:, None]


def _axis(distribution: BaseDistribution) -> Options | Numbers:
    if isinstance(distribution, CategoricalDistribution):
        return Options(distribution)
    assert isinstance(distribution, (IntDistribution, FloatDistribution))
    return Numbers(distribution)
