"""Nyström attention: all pairs of tokens are estimated from a few landmarks."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from archspec.errors import Refused, divisors
from archspec.graph import Node
from archspec.kind import Matrix, Weighted, Width
from archspec.streams import Stream


class NystromAttention(Weighted, kind="nystrom_attention", role=("mixer", "body")):
    """``softmax(q l') softmax(m l')^+ softmax(m k') v + filter * v``: landmarks ``m`` and ``l`` stand for all tokens.

    Xiong et al. 2021, "Nyströmformer: A Nyström-Based Algorithm for Approximating Self-Attention", arXiv 2102.03902. A
    landmark is the mean query, or key, of a segment of neighbouring tokens, of which there are ``landmarks``, all of
    one size. The inverse is found by ``z/4 (13 - kz (15 - kz (7 - kz)))``,
    repeated. A head's ``filter`` is a convolution of its values along the tokens. All products of queries and keys are
    scaled by ``1 / sqrt(head_width)``.
    """

    exempt: ClassVar[dict[str, str]] = {"batch": "with coefficient: batch, samples share the inverse's first estimate"}
    heads: Width
    head_width: Width | None = Field(None, description="features of a head; width / heads by default")
    bias: bool = True
    landmarks: Width | Literal["all"] = Field(64, description="segments of the sequence; all makes attention exact")
    iterations: Annotated[int, Field(ge=1, le=64)] = Field(6, description="steps of the inverse")
    coefficient: Literal["matrix", "batch"] = Field(
        "matrix",
        description="the inverse starts as the transpose over the largest column sum: of the matrix, or in the batch",
    )
    segments: Literal["real", "all"] = Field(
        "real", description="segments and filters are of the real tokens; or of all places, padding among them"
    )
    convolution: Width | None = Field(None, description="taps of the filter; none by default")

    def inner(self, x: Stream) -> int:
        """Features of all heads."""
        if self.head_width is None and x.width % self.heads:
            raise Refused("heads", f"width {x.width} does not divide into {self.heads} heads", divisors(x.width))
        return self.heads * (self.head_width or x.width // self.heads)

    def matrices(self, x: Stream) -> dict[str, Matrix]:
        inner = self.inner(x)
        ways = {role: Matrix(x.width, inner, self.bias) for role in ("query", "key", "value")}
        return ways | {"out": Matrix(inner, x.width, self.bias, "out")}

    def settle(self, node: Node) -> dict[str, Any]:
        return {"head_width": self.inner(node.types[0]) // self.heads}

    def output(self, x: Stream) -> Stream:
        if x.content != "features" or len(x.axes) != 1:
            raise Refused("", f"segments are cut from one axis, not from {x}")
        if x.causal:
            raise Refused("", f"a landmark knows its whole segment; {x} is causal along {', '.join(x.causal_axes)}")
        if self.convolution is not None and self.convolution % 2 == 0:
            raise Refused("convolution", f"an even size, {self.convolution}, has no middle",
                          [self.convolution - 1, self.convolution + 1])  # fmt: skip
        return x
