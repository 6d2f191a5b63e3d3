"""From ids and images to tokens, and tokens that are learned."""

from typing import Annotated, Any

from pydantic import Field

from archspec.errors import Refused, divisors
from archspec.kind import Free, Kind, Real, Width
from archspec.kinds.combinator import NORM
from archspec.place import Place
from archspec.streams import Axis, Span, Stream, single


class TokenEmbedding(Kind, kind="token_embedding"):
    """Looks up a learned vector for each id."""

    incremental = True
    width: Width
    vocab: Width | None = Field(None, description="rows of the table; the stream's vocabulary by default")
    scale: Real = Field(1.0, description="factor on the vectors, such as sqrt(width)")
    std: Annotated[Real, Free()] | None = Field(None, description="of the initial vectors; the file's init by default")

    def output(self, x: Stream) -> Stream:
        if x.content != "ids":
            raise Refused("", f"an embedding reads ids, not {x}", "kind: project changes the width of features")
        if self.vocab is not None and self.vocab < x.width:
            raise Refused("vocab", f"{self.vocab} rows for ids below {x.width}")
        return x.wide(self.width)


class LabelEmbedding(Kind, kind="label_embedding"):
    """Adds a learned vector for the label that each token carries (segments, modalities)."""

    incremental = True
    label: str
    std: Annotated[Real, Free()] = 0.02

    def output(self, x: Stream) -> Stream:
        if self.label not in dict(x.labels):
            raise Refused("label", f"tokens carry no label {self.label!r}", [name for name, _ in x.labels] or
                          "declare it under labels: of the interface")  # fmt: skip
        return x


class PatchEmbedding(Kind, kind="patch_embedding"):
    """Cuts a grid into patches and maps each to a token: a convolution whose stride is the patch.

    Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words", arXiv 2010.11929. With ``kernel`` larger than ``size``
    patches overlap. Works on grids of any number of axes.
    """

    size: Width = Field(description="patch size, the stride along every axis")
    width: Width
    kernel: Width | None = Field(None, description="size of the convolution; the patch size by default")
    padding: Annotated[int, Field(ge=0)] = 0
    norm: Annotated[Any, NORM] = None
    bias: bool = True

    def infer(self, at: Place) -> Stream:
        x = at.one()
        out = self.output(x)
        if at.has("norm"):
            at.slot("norm", out)
        return out

    def output(self, x: Stream) -> Stream:
        if len(x.spans) != 1 or not x.axes or x.content != "features":
            raise Refused("", f"patches are cut from a grid, not from {x}")
        axes = []
        for axis in x.axes:
            if not isinstance(axis.size, int):
                raise Refused("size", f"axis {axis.name!r} has no fixed size")
            kernel = self.kernel or self.size
            span = axis.size + 2 * self.padding - kernel
            if span < 0 or (span % self.size and self.kernel is None):
                raise Refused("size", f"{axis.name} {axis.size} does not divide into patches of {self.size}",
                              divisors(axis.size))  # fmt: skip
            axes.append(Axis(axis.name, span // self.size + 1))
        return single(self.width, "patches", *axes)


class LearnedQueries(Kind, kind="learned_queries"):
    """Tokens that are parameters, the same for every sample; they read nothing."""

    arity = (0, 0)
    count: Width = 1
    width: Width
    span: str = Field("queries", description="name of their span")
    std: Annotated[Real, Free()] = 0.02

    def infer(self, at: Place) -> Stream:
        return single(self.width, self.span, Axis("query", self.count))


class ClassToken(Kind, kind="class_token"):
    """Puts learned tokens before (or after) the others, as a span of their own.

    Devlin et al. 2018, "BERT", arXiv 1810.04805; Dosovitskiy et al. 2020, arXiv 2010.11929.
    """

    span: str = "class"
    count: Width = 1
    last: bool = Field(False, description="after the other tokens")
    std: Annotated[Real, Free()] = 0.02

    def output(self, x: Stream) -> Stream:
        if x.span(self.span):
            raise Refused("span", f"there is a span {self.span!r} already", "span: another name")
        if x.causal:
            raise Refused(
                "", "a class token among causal tokens could look ahead", "pool: {take: last} reads the last token"
            )
        span = Span(self.span, () if self.count == 1 else (Axis("query", self.count),))
        spans = (*x.spans, span) if self.last else (span, *x.spans)
        return x.on(*spans)
