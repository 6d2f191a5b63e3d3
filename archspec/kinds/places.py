"""What depends on a token's place alone: a bias of the scores by which it is read, and a number that grows."""

from typing import Annotated

from pydantic import Field

from archspec.errors import Refused
from archspec.kind import Free, Kind, Real, Width
from archspec.streams import Stream


class SinusoidalBias(Kind, kind="sinusoidal_bias", role=("position", "score_bias")):
    """Adds to each score a learned linear function, one for each head, of sines and cosines of the memory's place.

    Of a linear function of both places it is all that the softmax sees: what depends on the query's place alone all
    scores of a query have in common. So it makes a symmetric score asymmetric. Borji 2023, "Key-Value Transformer",
    arXiv 2305.19129. Frequency i of n is ``base^(-i / n)``.
    """

    incremental = True
    width: Width = Field(16, description="sines and cosines of a place")
    base: Annotated[float, Field(gt=1)] = 10000.0
    length: Width | None = Field(None, description="places, where the stream has no largest length")
    std: Annotated[Real, Free()] = 0.02

    def output(self, x: Stream) -> Stream:
        if len(x.axes) != 1:
            raise Refused("", f"a place needs one axis, not {x}")
        if x.most is None and self.length is None:
            raise Refused("length", f"{x} has no largest length", "length: 1024")
        if self.width % 2:
            raise Refused("width", f"sines and cosines need an even width, not {self.width}")
        return x


class LogPlaceScale(Kind, kind="log_place_scale"):
    """``x (1 + gain log(1 + place))`` with a learned gain, zero at first.

    What asks in an attention is so kept sharp as more tokens are read: Zhang et al. 2024, "Selective Attention:
    Enhancing Transformer through Principled Context Control", arXiv 2411.12892.
    """

    incremental = True

    def output(self, x: Stream) -> Stream:
        if len(x.axes) != 1 or x.content != "features":
            raise Refused("", f"a place needs one axis, not {x}")
        return x
