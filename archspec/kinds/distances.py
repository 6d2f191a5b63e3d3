"""Vectors for the distances between tokens: a table that every layer may read."""

from typing import Annotated

from pydantic import Field

from archspec.errors import Refused
from archspec.kind import Free, Kind, Real, Width
from archspec.place import Place
from archspec.streams import Axis, Stream, single

REACH = Field(description="distances -reach to reach - 1 have a vector")


class LearnedDistances(Kind, kind="learned_distances"):
    """A learned vector for each distance between two tokens, the same for every sample; it reads nothing.

    Shaw, Uszkoreit and Vaswani 2018, "Self-Attention with Relative Position Representations", arXiv 1803.02155.
    Attention that is relative reads it by name, in each layer anew or in all layers one.
    """

    arity = (0, 0)
    reach: Width = REACH
    width: Width
    std: Annotated[Real, Free()] = 0.02

    def infer(self, at: Place) -> Stream:
        return distances(self.width, self.reach)


class SinusoidalDistances(Kind, kind="sinusoidal_distances"):
    """Sines, then cosines, of each distance between two tokens at geometric frequencies; it reads nothing.

    Dai et al. 2019, "Transformer-XL", arXiv 1901.02860.
    """

    arity = (0, 0)
    reach: Width = REACH
    width: Width
    base: Annotated[float, Field(gt=1)] = 10000.0

    def infer(self, at: Place) -> Stream:
        if self.width % 2:
            raise Refused("width", f"sines and cosines need an even width, not {self.width}")
        return distances(self.width, self.reach)


def distances(width: int, reach: int) -> Stream:
    """The type of vectors for distances."""
    return single(width, "distances", Axis("distance", 2 * reach))


def reach_of(named: Stream) -> int | None:
    """The reach of a stream of distances; None for other streams."""
    size = named.axes[0].size if len(named.axes) == 1 and named.axes[0].name == "distance" else 0
    return size // 2 if isinstance(size, int) and size else None
