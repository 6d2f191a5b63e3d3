"""The problem of finding good members of a space, whose figures come from tables or from training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from search.frontier.features import Encoder, Features
from spaces.encoding import encode_all, sample_encoded
from spaces.space import Space
from spaces.variation import Variation

Reals = NDArray[np.float64]

SAMPLE = 1024  # random members that scale the features
LISTED = 1024  # members of a space that are listed rather than drawn


class Members:
    """Members of a space as a `search.frontier.Problem`.

    Args:
        objectives: names, minimised; those among the figures are cheap.
        figures: of vectors ``[n, slots]`` by name, known without an evaluation. ``parameters`` among them serves as the
            yardstick of the surrogates.
        allowed: which vectors keep the hard constraints; all by default.
        listed: the members that may be proposed, ``[members, slots]``; by default all of the space.
    """

    def __init__(
        self,
        space: Space,
        objectives: Sequence[str],
        figures: Callable[[Reals], Mapping[str, Reals]],
        *,
        allowed: Callable[[Reals], NDArray[np.bool_]] | None = None,
        listed: Reals | None = None,
    ) -> None:
        self.space, self.objectives, self.figures, self.allowed = space, objectives, figures, allowed
        self.listed = _all_of(space) if listed is None else listed
        self.variation = Variation(space)
        self._last: tuple[Reals, Mapping[str, Reals]] | None = None
        sample = self.draw(np.random.default_rng(0), SAMPLE)
        self.encoder = Encoder(space.slots, sample, self.cheap(sample))

    def draw(self, generator: np.random.Generator, count: int) -> Reals:
        if self.listed is not None:
            return self.listed[generator.permutation(len(self.listed))[:count]]
        return np.ascontiguousarray(sample_encoded(self.space, generator, count))

    def mutate(self, generator: np.random.Generator, vectors: Reals) -> Reals:
        return self.variation.mutate(generator, vectors)

    def cross(self, generator: np.random.Generator, first: Reals, second: Reals) -> Reals:
        return self.variation.cross(generator, first, second)

    def cheap(self, vectors: Reals) -> Mapping[str, Reals]:
        if self._last is None or self._last[0] is not vectors:  # asked again for the same array by those below
            self._last = vectors, self.figures(vectors)
        return self._last[1]

    def feasible(self, vectors: Reals) -> NDArray[np.bool_]:
        return np.ones(len(vectors), dtype=np.bool_) if self.allowed is None else self.allowed(vectors)

    def features(self, vectors: Reals) -> Features:
        return self.encoder(vectors, self.cheap(vectors))


def _all_of(space: Space) -> Reals | None:
    count = space.cardinality().high
    if count is None or count > LISTED:
        return None
    return encode_all(list(space.members()))
