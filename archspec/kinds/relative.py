"""Biases of attention's scores that depend on how far two tokens are apart."""

from typing import Annotated, Any

from pydantic import Field

from archspec.errors import Refused
from archspec.kind import Free, Kind, Real, Slot, Width
from archspec.place import Place
from archspec.streams import Axis, Span, Stream


class BucketedBias(Kind, kind="bucketed_bias", role=("position", "score_bias")):
    """Adds to each score a learned number of the head and of the bucket that the distance falls into.

    Near distances have a bucket each, the others share buckets that widen geometrically up to ``reach``, from where on
    all share the last one: of n buckets, distance d has ``d`` below n/2, else ``n/2 + n/2 log(2d/n) / log(2 reach/n)``.
    Where tokens read both ways, each way has half of the buckets.

    Raffel et al. 2019, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer" (T5), arXiv
    1910.10683.
    """

    incremental = True
    buckets: Annotated[int, Field(ge=2, le=65536)] = 32
    reach: Width = Field(128, description="distances from here on are one bucket")
    std: Annotated[Real, Free()] = 0.02

    def sides(self, x: Stream) -> int:
        """Ways that a token reads: back, or back and ahead."""
        return 1 if x.causal else 2

    def output(self, x: Stream) -> Stream:
        if len(x.axes) != 1:
            raise Refused("", f"a distance needs one axis, not {x}")
        exact = self.buckets // self.sides(x) // 2
        if self.buckets % (2 * self.sides(x)):
            raise Refused("buckets", f"{self.buckets} buckets", f"a multiple of {2 * self.sides(x)}")
        if self.reach <= exact:
            raise Refused("reach", f"{exact} distances have a bucket of their own; none is left to be shared",
                          f"more than {exact}")  # fmt: skip
        return x


class PositionBias(Kind, kind="position_bias"):
    """What a position inside attention adds to the scores, for all pairs of tokens: computed once for all layers.

    Attention reads it as ``score_bias``. So one table serves a stack of layers (Raffel et al. 2019, "T5", arXiv
    1910.10683).
    """

    incremental = True
    carries = True  # it tells nothing of what the tokens are
    heads: Width
    position: Annotated[Any, Slot(("score_bias",))] = "bucketed_bias"

    def infer(self, at: Place) -> Stream:
        x = at.one()
        if x.content != "features":
            raise Refused("", f"it reads features, not {x}", "embed the tokens first")
        at.slot("position", x)
        return pairs(x, self.heads)


def pairs(x: Stream, heads: int) -> Stream:
    """Pairs of a token that asks, along its own axis, and one that is read; a feature for each head."""
    asked = x.axes[0] if len(x.axes) == 1 else Axis("query", x.count)
    return Stream(heads, (Span("pairs", (asked, Axis("memory", x.count))),))
