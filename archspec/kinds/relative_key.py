"""Relative places that queries read as they read keys."""

from typing import Annotated

from archspec.errors import Refused
from archspec.kind import Free, Kind, Real, Width
from archspec.streams import Stream


class RelativeKey(Kind, kind="relative_key", role="position"):
    """Adds to each score the query's product with a learned vector of the distance, scaled as scores are.

    Shaw, Uszkoreit and Vaswani 2018, "Self-Attention with Relative Position Representations", arXiv 1803.02155, without
    their values; all heads share the vectors. Distances beyond the reach are taken for the last one.
    """

    incremental = True
    reach: Width
    std: Annotated[Real, Free()] = 0.02

    def output(self, x: Stream) -> Stream:
        if len(x.axes) != 1:
            raise Refused("", f"a distance needs one axis, not {x}")
        return x
