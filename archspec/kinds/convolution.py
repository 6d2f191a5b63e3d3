"""Convolutions over the tokens' grid."""

from typing import Annotated, Any

from pydantic import Field

from archspec.errors import Refused
from archspec.graph import Node
from archspec.kind import Kept, Kind, Matrix, Weighted, Width
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
        return convolved(x, self.size)

    def keeps(self, x: Stream) -> tuple[Kept, ...]:
        return (Kept(self.dilation * (self.size - 1) * x.width, per="sequence"),)


class ShortConvolution(Weighted, kind="short_convolution", role=("mixer", "body")):
    """A convolution of few taps for each feature between two gates, ``out(c * convolve(b * v))``.

    Liquid AI 2025, "LFM2 Technical Report", arXiv 2511.23404. ``b``, ``c`` and ``v`` are linear in the input; nothing
    is activated. Along a causal axis it reads only the past.
    """

    incremental = True
    size: Width = Field(3, description="taps along every axis")
    hidden: Width | None = Field(None, description="inner width; the input's by default")
    bias: bool = Field(False, description="biases on all matrices and the convolution")

    def inner(self, x: Stream) -> int:
        """The inner width."""
        return self.hidden or x.width

    def matrices(self, x: Stream) -> dict[str, Matrix]:
        gates = {role: Matrix(x.width, self.inner(x), self.bias) for role in ("input_gate", "output_gate", "value")}
        return gates | {"out": Matrix(self.inner(x), x.width, self.bias, "out")}

    def output(self, x: Stream) -> Stream:
        return convolved(x, self.size)

    def settle(self, node: Node) -> dict[str, Any]:
        return {"hidden": self.inner(node.types[0])}

    def keeps(self, x: Stream) -> tuple[Kept, ...]:
        return (Kept((self.size - 1) * self.inner(x), per="sequence"),)


def convolved(x: Stream, size: int) -> Stream:
    """What a convolution of this size gives, or why it cannot be."""
    if len(x.spans) != 1 or not 1 <= len(x.axes) <= 3:
        raise Refused("", f"needs tokens on one grid of one to three axes, not {x}")
    if len(x.axes) > 1 and x.causal:
        raise Refused("", f"cannot be causal on a grid of {len(x.axes)} axes")
    if not x.causal and size % 2 == 0:
        raise Refused("size", f"an even size, {size}, has no middle", [size - 1, size + 1])
    return x
