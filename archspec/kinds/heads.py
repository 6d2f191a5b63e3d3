"""Heads: what attentions share whose queries, keys and values come from one stream by matrices of one shape."""

from typing import Any, ClassVar

from pydantic import Field

from archspec.errors import Refused, divisors
from archspec.graph import Node
from archspec.kind import Matrix, Weighted, Width
from archspec.streams import Stream


class Heads(Weighted):
    """A mixer of one axis whose tokens read in several heads, and all of the sequence."""

    keeps_segments: ClassVar[bool] = False
    heads: Width
    head_width: Width | None = Field(None, description="features of a head; width / heads by default")
    bias: bool = Field(True, description="biases on all matrices")

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
        if x.segmented and not self.keeps_segments:
            raise Refused("", f"does not keep segments apart, which {x} has", "windows without a shift")
        if x.causal:
            raise Refused("", f"every token reads later ones; {x} is causal along {', '.join(sorted(x.causal_axes))}")
        return x
