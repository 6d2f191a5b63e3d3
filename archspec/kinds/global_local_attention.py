"""Attention among a few global tokens and many that read their neighbours, with labels of pairs."""

from typing import Annotated, Literal

from pydantic import Field

from archspec.errors import Refused
from archspec.kind import Free, Rate, Real, Width
from archspec.kinds.heads import Heads
from archspec.streams import Stream

BLOCKED = (
    "pieces in which tokens of unlike label do not read each other: of global (g) and long (l) tokens, who reads whom"
)


class GlobalLocalAttention(Heads, kind="global_local_attention", role=("mixer", "body")):
    """The tokens of the first span read all; those of the second read the first and what is within the radius.

    Each pair of tokens has a label, whose vector is added to the key: how far they are apart in their span, up to
    ``reach``, or, across spans, whether they carry the same ``label``. Global and long queries have their own vectors.
    Ainslie et al. 2020, "ETC: Encoding Long and Structured Inputs in Transformers", arXiv 2004.08483, with one set of
    matrices for all tokens. With a radius as long as the sequence and no blocked pieces it is full attention.
    """

    radius: Width = Field(description="tokens that are read on each side")
    reach: Width = Field(description="the largest distance that is told from larger ones")
    label: str | None = Field(None, description="of which a global and a long token have the same, or not")
    blocked: list[Literal["g2g", "g2l", "l2g", "l2l"]] = Field(default_factory=list, description=BLOCKED)
    std: Annotated[Real, Free()] = Field(0.02, description="of the vectors at first")
    dropout: Annotated[Rate, Free()] = Field(0.0, description="on the attention weights")

    def output(self, x: Stream) -> Stream:
        if len(x.spans) != 2 or any(len(span.axes) != 1 for span in x.spans):
            raise Refused("", f"reads global tokens and then long ones, two spans of one axis, not {x}",
                          "kind: join puts them together")  # fmt: skip
        if not isinstance(x.spans[0].count, int):
            raise Refused("", f"how many global tokens {x} has is known only at run time", "a number for their axis")
        if self.label is not None and self.label not in dict(x.labels):
            raise Refused("label", f"tokens carry no label {self.label!r}", [name for name, _ in x.labels] or
                          "declare it under labels: of the interface")  # fmt: skip
        if self.blocked and self.label is None:
            raise Refused("blocked", "what is blocked are pairs of unlike label", "label: …")
        if x.segmented or x.causal or x.content != "features":
            raise Refused("", f"reads features of tokens that all see each other, not {x}")
        return x
