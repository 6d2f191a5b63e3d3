"""Attention that starts as the identity, so that layers need no skips."""

from typing import Any

from pydantic import Field

from archspec.errors import Refused, divisors
from archspec.graph import Node
from archspec.kind import Kept, Matrix, Weighted, Width
from archspec.streams import Stream


class ShapedAttention(Weighted, kind="shaped_attention", role=("mixer", "body")):
    """``skip v + mix softmax(q k' / sqrt(head_width)) v - centre mean(v)``, three learned numbers for each head.

    The mean is that of all values that a token may read. All three are one at first: with queries of zero
    (``linears: {query: {kind: matrix, gain: 0}}``) the softmax is that mean, and each token reads itself alone. Values
    and the way out may go, as ``no_matrix``. Noci et al. 2023, "The Shaped Transformer", arXiv 2306.17759; He and
    Hofmann 2023, "Simplifying Transformer Blocks", arXiv 2311.01906. It follows the causality of its stream.
    """

    incremental = True
    example = "{kind: shaped_attention, heads: 4, linears: {query: {kind: matrix, gain: 0}, value: no_matrix}}"
    heads: Width
    head_width: Width | None = Field(None, description="features of a head; width / heads by default")
    bias: bool = Field(False, description="biases on query, key, value and out")

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
            raise Refused("", f"reads features of tokens along one axis, not {x}")
        if x.segmented:
            raise Refused("", f"the mean reaches beyond the segments of {x}", "windows without a shift")
        return x

    def keeps(self, x: Stream) -> tuple[Kept, ...]:
        inner = self.inner(x)
        return (Kept(2 * inner), Kept(inner + 1, per="sequence"))
