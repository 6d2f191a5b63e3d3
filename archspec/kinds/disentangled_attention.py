"""Disentangled attention: what a token says and how far away it is are two vectors."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from archspec.errors import Refused
from archspec.kind import Free, Matrix, Rate, Slot, Width
from archspec.kinds.distances import reach_of
from archspec.kinds.heads import Heads
from archspec.place import Place
from archspec.streams import Stream


class DisentangledAttention(Heads, kind="disentangled_attention", role=("mixer", "body")):
    """Multi-head attention, ``softmax((q_i k_j + q_i r_d(i,j) + k_j s_d(i,j)) / sqrt(terms head_width)) v``.

    He et al. 2020, "DeBERTa: Decoding-enhanced BERT with Disentangled Attention", arXiv 2006.03654; buckets and shared
    matrices: He, Gao and Chen 2021, "DeBERTaV3", arXiv 2111.09543. Each distance has a vector in the stream
    ``positions``, which matrices make a key ``r`` (content to position) and a query ``s`` (position to content). The
    content's own matrices do so where ``shared``. Distances beyond the stream's reach count as its last one; with
    ``longest``, those beyond half of the reach share its rows logarithmically, up to that distance.
    """

    keeps_segments: ClassVar[bool] = True
    example = """\
- {name: far, kind: learned_distances, reach: 64, width: 64}
- {from: x, kind: disentangled_attention, heads: 4, positions: far}"""
    positions: Annotated[Any, Slot(("mask",), stream=True)] = Field(description="a stream of distances, by name")
    terms: list[Literal["content_to_position", "position_to_content"]] = Field(
        default=["content_to_position", "position_to_content"], min_length=1
    )
    shared: bool = Field(False, description="positions go through the matrices query and key of the content")
    longest: Width | None = Field(None, description="the distance that the last row stands for")
    dropout: Annotated[Rate, Free()] = Field(0.0, description="on the attention weights")

    def position_matrices(self, x: Stream, positions: Stream) -> dict[str, Matrix]:
        """Matrices of the distances, where they have their own."""
        terms = {} if self.shared else {"content_to_position": "position_key", "position_to_content": "position_query"}
        matrix = Matrix(positions.width, self.inner(x), self.bias)
        return {role: matrix for term, role in terms.items() if term in self.terms}

    def infer(self, at: Place) -> Stream:
        x = self.output(at.one())
        named = at.stream("positions")
        reach = reach_of(named) if named is not None else None
        if named is None or reach is None:
            raise Refused("positions", f"{at.raw('positions')!r} is no stream of distances",
                          "name a node of the kind learned_distances")  # fmt: skip
        if self.shared and named.width != x.width:
            raise Refused("shared", f"the distances are {named}; the tokens {x}", f"distances of width {x.width}")
        if self.longest is not None and (reach < 4 or self.longest <= reach // 2 + 1):
            raise Refused("longest", f"a reach of {reach} does not bend up to {self.longest}",
                          f"more than {reach // 2 + 1}" if reach >= 4 else "a reach of 4 or more")  # fmt: skip
        at.own(self.matrices(x) | self.position_matrices(x, named))
        return x
