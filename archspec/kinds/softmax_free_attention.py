"""Softmax-free attention: a Gaussian kernel of tied queries and keys, through a few landmarks."""

from typing import Annotated, Any

from pydantic import Field

from archspec.errors import Refused
from archspec.kind import Matrix, Slot, Width
from archspec.kinds.heads import Heads
from archspec.place import Place
from archspec.streams import Stream


class SoftmaxFreeAttention(Heads, kind="softmax_free_attention", role=("mixer", "body")):
    """``G(q, m) (G(m, m) + ridge)^-1 G(m, q) v + filter * v``, where ``G(a, b) = exp(-|a - b|^2 / 2)``.

    Keys are the queries, divided by ``head_width ** 0.25``. Landmarks ``m`` are what a body makes of each head's
    queries on their grid; with all tokens as landmarks it is ``G(q, q) v``, as it is without the body. The inverse is
    found by ``z (2 - g z)``, repeated, and its gradient is that of an inverse. A head's ``filter`` is a convolution of
    its values. Lu et al. 2021, "SOFT: Softmax-free Transformer with Linear Complexity", arXiv 2110.11945; with
    ``normalize``, by the roots of the landmarks' sums on both sides: Lu et al. 2022, "Softmax-free Linear
    Transformers", arXiv 2207.03341.
    """

    example = "{kind: softmax_free_attention, heads: 4, landmarks: {kind: pool, window: 4}}"
    landmarks: Annotated[Any, Slot(("body",))] = Field(
        None, description="a body applied to a head's queries, such as a pool; all tokens by default"
    )
    iterations: Annotated[int, Field(ge=1, le=64)] = Field(20, description="steps of the inverse")
    ridge: Annotated[float, Field(ge=0)] = Field(0.01, description="added to the kernel's diagonal before the inverse")
    normalize: bool = Field(False, description="the inverse is divided by roots of the landmarks' sums")
    convolution: Width | None = Field(None, description="taps of the filter along every axis; none by default")

    def matrices(self, x: Stream) -> dict[str, Matrix]:
        inner = self.inner(x)
        ways = {role: Matrix(x.width, inner, self.bias) for role in ("query", "value")}
        return ways | {"out": Matrix(inner, x.width, self.bias, "out")}

    def infer(self, at: Place) -> Stream:
        x = at.one()
        if x.content != "features" or len(x.spans) != 1 or x.valid or x.segmented:
            raise Refused("", f"reads features of all tokens of one grid, not {x}")
        if x.causal:
            raise Refused("", f"every token reads later ones; {x} is causal along {', '.join(sorted(x.causal_axes))}")
        if self.convolution is not None and self.convolution % 2 == 0:
            raise Refused("convolution", f"an even size, {self.convolution}, has no middle",
                          [self.convolution - 1, self.convolution + 1])  # fmt: skip
        at.own(self.matrices(x))
        if at.has("landmarks"):
            asked = x.wide(self.inner(x) // self.heads)
            made = at.slot("landmarks", asked)
            if made.outer or made.output.width != asked.width or not made.output.spans:
                raise Refused("landmarks", f"makes {made.output} of the queries of a head, {asked}",
                              "tokens as wide as the queries, of nothing else")  # fmt: skip
        return x
