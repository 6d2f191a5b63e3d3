"""Convolutions over the tokens' grid."""

from typing import Annotated, Any

from pydantic import Field

from archspec.errors import Refused
from archspec.graph import Node
from archspec.kind import Kept, Kind, Matrix, Weighted, Width
from archspec.streams import Stream


class Convolution(Kind, kind="convolution", role=("mixer", "body")):
    """Each token becomes a linear map of the tokens around it, itself in the middle; along a causal axis of its past.

    LeCun et al. 1989, "Backpropagation Applied to Handwritten Zip Code Recognition". ``groups`` of features do not mix.
    """

    incremental = True
    size: Width = Field(3, description="taps along every axis")
    width: Width | None = Field(None, description="output width; the input's by default")
    groups: Width = 1
    dilation: Annotated[int, Field(gt=0)] = 1
    bias: bool = True

    def output(self, x: Stream) -> Stream:
        convolvable(x, self.size)
        width = self.width or x.width
        if x.width % self.groups or width % self.groups:
            raise Refused("groups", f"widths {x.width} and {width} do not divide into {self.groups} groups",
                          "a number that divides both")  # fmt: skip
        return x.wide(width)

    def keeps(self, x: Stream) -> tuple[Kept, ...]:
        return (Kept(self.dilation * (self.size - 1) * x.width, per="sequence"),)


class DepthwiseConvolution(Kind, kind="depthwise_convolution", role=("mixer", "body")):
    """Each feature is filtered along the tokens' axes on its own; along a causal axis it reads only the past.

    Chollet 2016, "Xception", arXiv 1610.02357; on sequences Wu et al. 2019, arXiv 1901.10430.
    """

    incremental = True
    rare = ("circular",)
    size: Width = Field(3, description="taps along every axis")
    dilation: Annotated[int, Field(gt=0)] = 1
    bias: bool = True
    circular: bool = Field(False, description="every axis is a circle, on which its first token follows its last")

    def output(self, x: Stream) -> Stream:
        convolvable(x, self.size)
        return around(x) if self.circular else x

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
        convolvable(x, self.size)
        return x

    def settle(self, node: Node) -> dict[str, Any]:
        return {"hidden": self.inner(node.types[0])}

    def keeps(self, x: Stream) -> tuple[Kept, ...]:
        return (Kept((self.size - 1) * self.inner(x), per="sequence"),)


def convolvable(x: Stream, size: int) -> None:
    """Refuses tokens over which nothing of this size can be moved."""
    if len(x.spans) != 1 or not 1 <= len(x.axes) <= 3:
        raise Refused("", f"needs tokens on one grid of one to three axes, not {x}")
    if len(x.axes) > 1 and x.causal:
        raise Refused("", f"cannot be causal on a grid of {len(x.axes)} axes")
    if not x.causal and size % 2 == 0:
        raise Refused("size", f"an even size, {size}, has no middle", [size - 1, size + 1])


def around(x: Stream) -> Stream:
    """The stream, whose axes are taken for circles; refused where they have an end."""
    if x.causal:
        raise Refused("", f"the first token of a circle follows its last; {x} is causal", "an axis that is not causal")
    if x.valid:
        raise Refused("", "padding would be a part of the circle", "padding: false, and samples of one length")
    return x
