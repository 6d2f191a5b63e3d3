"""Attention to near tokens one by one, and to far ones by segments, each of which answers for its tokens."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from archspec.errors import Refused
from archspec.kind import Free, Kept, Rate, Width
from archspec.kinds.heads import Heads
from archspec.streams import Stream

PATTERN = (
    "fixed: every other segment, asked by the largest features of its queries; axial: every other segment, asked by "
    "its token at the reader's place in its own; logsparse: runs of 1, 2, 4, … segments that together are the rest"
)


class Combiner(Heads, kind="combiner", role=("mixer", "body")):
    """One softmax over the tokens of a token's own segment and one entry for each segment beyond, so all is read.

    What is read of a segment is an expectation of its own, a softmax of the segment's query over its keys; its entry's
    key is made of its keys as its query is of its queries. It follows the causality of its stream: segments are those
    before. Ren et al. 2021, "Combiner: Full Attention Transformer with Sparse Computation Cost", arXiv 2107.05768. With
    segments of about ``sqrt(n)`` tokens it costs ``n^1.5``; ``logsparse``, with segments of one size, ``n log n``.
    """

    incremental: ClassVar[bool] = True
    segment: Width = Field(description="tokens that are read one by one")
    pattern: Literal["fixed", "axial", "logsparse"] = Field("fixed", description=PATTERN)
    dropout: Annotated[Rate, Free()] = Field(0.0, description="on the attention weights")

    def output(self, x: Stream) -> Stream:
        if x.content != "features" or len(x.axes) != 1:
            raise Refused("", f"reads features of tokens along one axis, not {x}")
        if x.segmented:
            raise Refused("", f"does not keep segments apart, which {x} has", "windows without a shift")
        return x

    def keeps(self, x: Stream) -> tuple[Kept, ...]:
        return (Kept(3 * self.inner(x)),)
