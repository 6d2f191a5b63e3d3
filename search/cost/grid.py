"""Seconds measured on a grid of sizes, and read between its points.

Times of kernels are powers of their sizes, piece by piece; so logarithms are interpolated linearly along every axis.
Beyond the largest size of an axis a time grows in proportion; below the smallest it stays.
"""

from __future__ import annotations

from itertools import product
from math import exp, log, prod
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

Size = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Reading(NamedTuple):
    """Seconds, and whether the point lies inside the grid."""

    seconds: float
    inside: bool


class Grid(BaseModel):
    """Seconds by sizes.

    Attributes:
        axes: the sizes along each axis, ascending.
        seconds: of all combinations, the last axis running fastest.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    axes: dict[str, tuple[Size, ...]]
    seconds: tuple[Size, ...]

    @model_validator(mode="after")
    def _whole(self) -> Grid:
        if prod(map(len, self.axes.values())) != len(self.seconds):
            raise ValueError("a grid has one time for each combination of its sizes")
        if any(list(sizes) != sorted(set(sizes)) for sizes in self.axes.values()):
            raise ValueError("the sizes of a grid ascend")
        return self

    def at(self, *point: float) -> Reading:
        """Seconds at a point, its coordinates in the order of the axes."""
        corners: list[list[tuple[int, float]]] = []
        growth, inside = 1.0, True
        for sizes, value in zip(self.axes.values(), point, strict=True):
            if value >= sizes[-1]:
                growth *= value / sizes[-1]
                inside = inside and value <= 2 * sizes[-1]
                corners.append([(len(sizes) - 1, 1.0)])
            elif value <= sizes[0]:
                inside = inside and 2 * value >= sizes[0]
                corners.append([(0, 1.0)])
            else:
                high = next(number for number, size in enumerate(sizes) if size > value)
                share = log(value / sizes[high - 1]) / log(sizes[high] / sizes[high - 1])
                corners.append([(high - 1, 1.0 - share), (high, share)])
        total = 0.0
        lengths = [len(sizes) for sizes in self.axes.values()]
        for corner in product(*corners):
            index = 0
            for (place, _), length in zip(corner, lengths, strict=True):
                index = index * length + place
            total += prod(share for _, share in corner) * log(self.seconds[index])
        return Reading(exp(total) * growth, inside)
