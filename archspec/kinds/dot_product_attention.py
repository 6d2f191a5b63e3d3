"""Attention between streams that are queries, keys and values already."""

from typing import Annotated

from pydantic import Field

from archspec.errors import Refused, divisors
from archspec.kind import Kind, Width
from archspec.place import Place
from archspec.streams import Stream


class DotProductAttention(Kind, kind="dot_product_attention"):
    """``softmax(q k' scale) v`` of three streams, in heads, without a matrix of its own.

    Vaswani et al. 2017, "Attention Is All You Need", arXiv 1706.03762. So keys and values that were made once are read
    again, by whomever. Keys that are not real are not read. It is for whole sequences.
    """

    arity = (3, 3)
    heads: Width
    scale: Annotated[float, Field(gt=0)] | None = Field(
        None, description="factor on scores; 1 / sqrt(features of a head) by default"
    )

    def infer(self, at: Place) -> Stream:
        query, keys, values = at.inputs
        for stream in at.inputs:
            if stream.content != "features" or not stream.spans or stream.causal:
                raise Refused("from", f"reads whole sequences of features, not {stream}", "kind: attention")
            if stream.width % self.heads:
                cause = f"width {stream.width} does not divide into {self.heads} heads"
                raise Refused("heads", cause, divisors(stream.width))
        if query.width != keys.width or keys.count != values.count:
            raise Refused("from", f"queries are {query}, keys {keys}, values {values}", "keys as wide as queries")
        return query.wide(values.width)
