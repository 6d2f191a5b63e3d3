"""Relative attention: scores of contents, of distances, and of belonging together, each with a bias."""

from typing import Annotated, Any

from pydantic import Field

from archspec.errors import Refused
from archspec.kind import Free, Matrix, Rate, Real, Slot
from archspec.kinds.distances import reach_of
from archspec.kinds.heads import Heads
from archspec.place import Place
from archspec.streams import Stream


class RelativeAttention(Heads, kind="relative_attention", role=("mixer", "body")):
    """``softmax(((q_i + a) k_j + (q_i + b) W r_d(i,j) + (q_i + c) s_same(i,j)) / sqrt(head_width)) v``.

    Dai et al. 2019, "Transformer-XL", arXiv 1901.02860; the last term, of tokens of one ``label`` or of two: Yang et
    al. 2019, "XLNet", arXiv 1906.08237. Vectors ``a``, ``b``, ``c`` and ``s`` are learned for each head, ``r`` is the
    stream of distances ``positions``; those beyond its reach count as its last one. Tokens read themselves, or a
    second stream: queries that were downsampled read the tokens before (Dai et al. 2020, "Funnel-Transformer",
    arXiv 2006.03236). Distances are counted in tokens as they were before they were joined.
    """

    arity = (1, 2)
    example = """\
- {name: far, kind: sinusoidal_distances, reach: 64, width: 64}
- {from: x, kind: relative_attention, heads: 4, positions: far}"""
    positions: Annotated[Any, Slot(("mask",), stream=True)] = Field(description="a stream of distances, by name")
    label: str | None = Field(None, description="the label by which tokens belong together")
    joker: Annotated[int, Field(ge=0)] | None = Field(None, description="value of the label that belongs to all")
    lone_first: bool = Field(False, description="the first token has neither place nor label, such as a class token")
    std: Annotated[Real, Free()] = 0.02
    dropout: Annotated[Rate, Free()] = Field(0.0, description="on the attention weights")

    def infer(self, at: Place) -> Stream:
        x, memory = self.output(at.inputs[0]), self.output(at.inputs[-1])
        if x.axes[0].step % memory.axes[0].step:
            raise Refused("from", f"tokens of {x} lie between those of {memory}", "the tokens before they were joined")
        named = at.stream("positions")
        if named is None or reach_of(named) is None:
            raise Refused("positions", f"{at.raw('positions')!r} is no stream of distances",
                          "name a node of the kind sinusoidal_distances")  # fmt: skip
        for stream in (x, memory):
            if self.label is not None and self.label not in dict(stream.labels):
                raise Refused("label", f"{stream} carries no label {self.label!r}", [name for name, _ in x.labels])
        inner = self.inner(x)
        sides = {role: Matrix(memory.width, inner, self.bias) for role in ("key", "value")}
        at.own({**self.matrices(x), **sides, "position": Matrix(named.width, inner)})
        return x
