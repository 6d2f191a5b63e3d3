"""Convolutions over the tokens' grid."""

from typing import Annotated

from pydantic import Field

from archspec.errors import Refused
from archspec.kind import Kept, Kind, Width
from archspec.streams import Stream


class DepthwiseConvolution(Kind, kind="depthwise_convolution", role=("mixer", "body")):
    """Each feature is filtered along the tokens' axes on its own; along a causal axis it reads only the past.

    Chollet 2016, "Xception", arXiv 1610.02357; on sequences Wu et al. 2019, arXiv 1901.10430.
    """

    incremental = True
    size: Width = Field(3, description="taps along every axis")
    dilation: Annotated[int, Field(gt=0)] = 1
    bias: bool = True

    def output(self, x: Stream) -> Stream:
        if len(x.spans) != 1 or not 1 <= len(x.axes) <= 3:
            raise Refused("", f"needs tokens on one grid of one to three axes, not {x}")
        if len(x.axes) > 1 and x.causal:
            raise Refused("", f"cannot be causal on a grid of {len(x.axes)} axes")
        if not x.causal and self.size % 2 == 0:
            raise Refused("size", f"an even size, {self.size}, has no middle", [self.size - 1, self.size + 1])
        return x

    def keeps(self, x: Stream) -> tuple[Kept, ...]:
        return (Kept(self.dilation * (self.size - 1) * x.width, per="sequence"),)
