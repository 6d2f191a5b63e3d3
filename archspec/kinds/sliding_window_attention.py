"""Sliding-window attention: tokens read their neighbours, and a few tokens read and are read by all."""

from typing import Annotated

from pydantic import Field

from archspec.errors import Refused
from archspec.kind import Free, Matrix, Rate, Width
from archspec.kinds.heads import Heads
from archspec.streams import Stream


class SlidingWindowAttention(Heads, kind="sliding_window_attention", role=("mixer", "body")):
    """Multi-head attention of each token to ``window`` tokens on either side and to the global ones.

    Beltagy, Peters and Cohan 2020, "Longformer: The Long-Document Transformer", arXiv 2004.05150. Tokens whose
    ``label`` is not 0 are global: all tokens read them, and they read all, by matrices of their own where
    ``separate``. It costs a window for each token, and a sequence for each global token.
    """

    window: Width = Field(description="tokens that are read on each side")
    label: str | None = Field(None, description="the label that makes tokens global; none are by default")
    separate: bool = Field(True, description="global tokens have queries of their own, for other keys and values")
    limit: Width | None = Field(
        None, description="most global tokens of a sequence; any number by default, and all are priced"
    )
    dropout: Annotated[Rate, Free()] = Field(0.0, description="on the attention weights")

    def matrices(self, x: Stream) -> dict[str, Matrix]:
        found, ways = super().matrices(x), ("global_query", "global_key", "global_value")
        if self.label is not None and self.separate:
            found |= {role: Matrix(x.width, self.inner(x), self.bias) for role in ways}
        return found

    def output(self, x: Stream) -> Stream:
        if self.label is not None and self.label not in dict(x.labels):
            raise Refused("label", f"tokens carry no label {self.label!r}", [name for name, _ in x.labels] or
                          "declare it under labels: of the interface")  # fmt: skip
        return super().output(x)
