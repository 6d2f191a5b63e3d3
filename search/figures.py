"""Figures of encoded candidates that are known without training, of hundreds of thousands at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from search.cost import devices
from search.cost.table import Prices, Table
from search.objectives import Bound, Objective, Tabled
from search.recipe import Recipe
from spaces.space import Space

Reals = NDArray[np.float64]

PARAMETERS = "parameters"
LANGUAGE = "what the language allows"


class Figures:
    """The tabled objectives and bounds of a study.

    Args:
        recipe: it says the length that figures are of by default.
    """

    def __init__(self, space: Space, recipe: Recipe, objectives: Sequence[Objective], bounds: Sequence[Bound]) -> None:
        self.space, self.recipe = space, recipe
        tabled = ((objective, objective.tabled(recipe)) for objective in objectives)
        self.objectives = [(objective, where) for objective, where in tabled if where is not None]
        limits = ((bound, bound.objective.tabled(recipe)) for bound in bounds)
        self.bounds = [(bound, where) for bound, where in limits if where is not None]
        self._tables: dict[tuple[object, ...], Table] = {}
        self._last: tuple[Reals, dict[int, Prices]] | None = None

    @cached_property
    def _size(self) -> Tabled:
        """Where the number of parameters stands: in a table that is needed anyway, if there is one."""
        for _, where in [*self.objectives, *self.bounds]:
            return Tabled(where.conditions, "parameters")
        conditions = {"batch": 1, "length": self.recipe.length, "dtype": "float32", "device": devices.names()[0]}
        return Tabled(conditions, "parameters")

    def cheap(self, vectors: Reals) -> Mapping[str, Reals]:
        """Objectives by name, all to be minimised, and the number of parameters.

        Args:
            vectors: ``[n, slots]``.
        """
        found = {PARAMETERS: self._column(self._size, vectors)}
        for objective, where in self.objectives:
            sign = -1.0 if objective.direction == "maximize" else 1.0
            found[objective.name] = sign * self._column(where, vectors)
        return found

    def allowed(self, vectors: Reals) -> NDArray[np.bool_]:
        """Which candidates keep all bounds that are tabled, and are not refused by the language."""
        found = ~self._prices(self._size, vectors).refused
        for bound, where in self.bounds:
            found &= _kept(bound, self._column(where, vectors))
        return found

    def refusals(self, vectors: Reals) -> Counter[str]:
        """How many candidates each bound refuses; one that several refuse counts for the first."""
        left = ~self._prices(self._size, vectors).refused
        found = Counter({LANGUAGE: int((~left).sum())})
        for bound, where in self.bounds:
            kept = _kept(bound, self._column(where, vectors))
            found[str(bound)] += int((left & ~kept).sum())
            left = left & kept
        return +found

    def excess(self, vectors: Reals) -> Reals:
        """How far candidates are outside of the bounds, ``[n]``: sums of log ratios; infinite for refused ones."""
        found = np.where(self._prices(self._size, vectors).refused, np.inf, 0.0)
        for bound, where in self.bounds:
            value = np.maximum(self._column(where, vectors), 1e-300)
            if bound.at_most is not None:
                found += np.maximum(np.log(value / max(bound.at_most, 1e-300)), 0.0)
            if bound.at_least is not None:
                found += np.maximum(np.log(max(bound.at_least, 1e-300) / value), 0.0)
        return found

    def _column(self, where: Tabled, vectors: Reals) -> Reals:
        return where.times * np.asarray(getattr(self._prices(where, vectors), where.column), dtype=np.float64)

    def _table(self, where: Tabled) -> Table:
        conditions = where.conditions
        if where.column != "latency_ms":  # all else is the same on every device: the table of a latency may have it
            like = {**conditions, "phase": "prefill"}
            tabled = (one.conditions for _, one in [*self.objectives, *self.bounds] if one.column == "latency_ms")
            conditions = next((one for one in tabled if {**one, "device": like["device"]} == like), conditions)
        key = tuple(sorted(conditions.items(), key=str))
        if key not in self._tables:
            self._tables[key] = Table(self.space, **conditions)
        return self._tables[key]

    def _prices(self, where: Tabled, vectors: Reals) -> Prices:
        table = self._table(where)
        if self._last is None or self._last[0] is not vectors:  # several figures are asked of one array in turn
            self._last = vectors, {}
        known = self._last[1]
        if id(table) not in known:
            known[id(table)] = table.price(vectors)
        return known[id(table)]


def _kept(bound: Bound, values: Reals) -> NDArray[np.bool_]:
    low = -np.inf if bound.at_least is None else bound.at_least
    high = np.inf if bound.at_most is None else bound.at_most
    return (low <= values) & (values <= high)
