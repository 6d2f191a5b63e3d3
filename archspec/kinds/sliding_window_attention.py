"""Sliding-window attention: tokens read their neighbours, and a few tokens read and are read by all."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from archspec.errors import Refused, divisors
from archspec.graph import Node
from archspec.kind import Free, Matrix, Rate, Weighted, Width
from archspec.streams import Stream


class SlidingWindowAttention(Weighted, kind="sliding_window_attention", role=("mixer", "body")):
    """Multi-head attention of each token to ``window`` tokens on either side and to the global ones.

    Beltagy, Peters and Cohan 2020, "Longformer: The Long-Document Transformer", arXiv 2004.05150. Tokens whose
    ``label`` is not 0 are global: all tokens read them, and they read all, by matrices of their own where
    ``separate``. It costs a window for each token, and a sequence for each global token.
    """

    heads: Width
    head_width: Width | None = Field(None, description="features of a head; width / heads by default")
    bias: bool = True
    window: Width = Field(description="tokens that are read on each side")
    label: str | None = Field(None, description="the label that makes tokens global; none are by default")
    separate: bool = Field(True, description="global tokens have queries of their own, for other keys and values")
    limit: Width | None = Field(
        None, description="most global tokens of a sequence; any number by default, and all are priced"
    )
    dropout: Annotated[Rate, Free()] = Field(0.0, description="on the attention weights")

    def inner(self, x: Stream) -> int:
        """Features of all heads."""
        if self.head_width is None and x.width % self.heads:
            raise Refused("heads", f"width {x.width} does not divide into {self.heads} heads", divisors(x.width))
        return self.heads * (self.head_width or x.width // self.heads)

    def matrices(self, x: Stream) -> dict[str, Matrix]:
        inner = self.inner(x)
        roles = ["query", "key", "value"]
        if self.label is not None and self.separate:
            roles += ["global_query", "global_key", "global_value"]
        return {role: Matrix(x.width, inner, self.bias) for role in roles} | {
            "out": Matrix(inner, x.width, self.bias, "out")
        }

    def settle(self, node: Node) -> dict[str, Any]:
        return {"head_width": self.inner(node.types[0]) // self.heads}

    def output(self, x: Stream) -> Stream:
        if x.content != "features" or len(x.axes) != 1:
            raise Refused("", f"a window slides along one axis, not over {x}")
        if x.causal:
            raise Refused("", f"a window has two sides; {x} is causal along {', '.join(x.causal_axes)}",
                          "kind: attention, with a window")  # fmt: skip
        if self.label is not None and self.label not in dict(x.labels):
            raise Refused("label", f"tokens carry no label {self.label!r}", [name for name, _ in x.labels] or
                          "declare it under labels: of the interface")  # fmt: skip
        return x
