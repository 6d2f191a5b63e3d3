"""A body that reads the tokens which a slow copy of it finds worth reading."""

from dataclasses import replace
from math import ceil
from typing import Annotated, Any

from pydantic import Field

from archspec.errors import Refused
from archspec.kind import Kind, Slot
from archspec.kinds.combinator import BODY
from archspec.place import Place
from archspec.streams import Axis, Size, Span, Stream


class GuidedSelection(Kind, kind="guided_selection"):
    """The body over a share of the tokens, those with the highest scores in their order; the others are gone.

    Wang et al. 2023, "Selective Structured State-Spaces for Long-Form Video Understanding", arXiv 2303.14526: scores
    are made of what a copy of the body gives for all tokens. The copy has no gradient and runs as in inference; each
    pass of training first makes its weights ``momentum * its own + (1 - momentum) * the body's``, which they start as.
    The score learns by a factor on each token that is read, one whose gradient is that of the score's sigmoid.
    """

    ratio: Annotated[float, Field(gt=0, le=1)] = Field(0.5, description="share of the tokens that is read, rounded up")
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    body: Annotated[Any, BODY] = Field(description="gives as many tokens as it reads")
    score: Annotated[Any, Slot(("body",))] = Field(description="makes of what the copy gives one number for each token")

    def infer(self, at: Place) -> Stream:
        x = at.one()
        if x.content != "features" or len(x.axes) != 1 or x.segmented:
            raise Refused("", f"tokens are chosen along one axis, not from {x}", "flatten the grid first")
        if x.causal:
            raise Refused("", f"which tokens are read depends on all; {x} is causal", "an axis that is not causal")
        axis = x.axes[0]
        size: Size = self.count(axis.size) if isinstance(axis.size, int) else f"-(-{self.ratio:g}*{axis.size}//1)"
        span = Span(x.spans[0].name, (Axis(axis.name, size, limit=axis.most),))  # coordinates keep the whole range
        kept = replace(x, spans=(span,), placed=True)
        body, layers = at.slot("body", kept), at.layers
        copy = at.slot("body", x, as_="copy")
        at.layers = layers
        if copy.output.spans != x.spans:
            raise Refused("body", f"gives {copy.output} for {x}; each token needs a score", "a pool after this node")
        score = at.slot("score", copy.output)
        if (score.output.spans, score.output.width) != (x.spans, 1):
            raise Refused("score", f"gives {score.output}; each token of {x} needs one number", "width: 1")
        for field, graph in (("body", body), ("score", score)):
            if graph.outer or graph.differs_in_training:
                what = f"reads {', '.join(graph.outer)} from outside" if graph.outer else "adds a loss in training"
                raise Refused(field, f"{what}, which has no place beside a copy", "a body of its input alone")
        return body.output

    def count(self, tokens: int) -> int:
        """How many of so many tokens are read."""
        return ceil(tokens * self.ratio - 1e-9)  # a share such as 0.1 is a little more than it says
