"""Nyström attention: all pairs of tokens are estimated from a few landmarks."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from archspec.errors import Refused
from archspec.kind import Width
from archspec.kinds.heads import Heads
from archspec.streams import Stream


class NystromAttention(Heads, kind="nystrom_attention", role=("mixer", "body")):
    """``softmax(q l') softmax(m l')^+ softmax(m k') v + filter * v``: landmarks ``m`` and ``l`` stand for all tokens.

    Xiong et al. 2021, "Nyströmformer: A Nyström-Based Algorithm for Approximating Self-Attention", arXiv 2102.03902. A
    landmark is the mean query, or key, of a segment of neighbouring tokens, of which there are ``landmarks``, all of
    one size. The inverse is found by ``z/4 (13 - kz (15 - kz (7 - kz)))``, repeated. A head's ``filter`` is a
    convolution of its values along the tokens. All products of queries and keys are scaled by ``1 / sqrt(head_width)``.
    """

    exempt: ClassVar[dict[str, str]] = {"batch": "with coefficient: batch, samples share the inverse's first estimate"}
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

    @property
    def apart(self) -> bool:  # type: ignore[override]
        return self.coefficient == "matrix"

    def output(self, x: Stream) -> Stream:
        if self.convolution is not None and self.convolution % 2 == 0:
            raise Refused("convolution", f"an even size, {self.convolution}, has no middle",
                          [self.convolution - 1, self.convolution + 1])  # fmt: skip
        return super().output(x)
