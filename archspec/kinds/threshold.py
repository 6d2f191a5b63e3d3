"""A selector whose number of tokens is not fixed: each decides for itself."""

from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from archspec.errors import Refused
from archspec.kind import Free, Kind, Moves, Rate, Real, Slot
from archspec.place import Place
from archspec.streams import Axis, Span, Stream

SOME = " of them"
"""How the size of an axis ends along which each sequence has as many tokens as entered, about the share before it."""


def share(x: Stream) -> float | None:
    """What share of all tokens a stream is counted on to have, whose tokens are those that entered; None for others."""
    some = [axis.size for axis in x.axes if isinstance(axis.size, str) and axis.size.endswith(SOME)]
    return float(some[0].removesuffix(SOME)) if some else None


class Threshold(Kind, kind="threshold", role="selector"):
    """The tokens enter whose score ``s`` has ``sigmoid(s)`` of at least a threshold, as many as there are.

    ``score`` is a stream of one feature for each token, such as a ``project`` of width 1: a router, or the logit of
    going on to deeper layers. The choice is hard and has the gradient of the sigmoid (Bengio et al. 2013, "Estimating
    or Propagating Gradients Through Stochastic Neurons", arXiv 1308.3432); so that tokens that stay out teach it too,
    in training the body works for them as well, though nobody sees them. In inference it works on those that enter
    alone. A threshold of 0 lets all enter and is the body alone.

    ``capacity`` is the share that is counted on: cost is that of so many tokens (a decoded one is taken for one that
    enters), and training adds ``penalty`` times what the present share has above it (He et al. 2024,
    "Router-Tuning", arXiv 2410.13184).
    """

    incremental = True
    example = "{kind: threshold, score: router, capacity: 0.5}"
    score: Annotated[Any, Slot(("mask",), stream=True)]
    threshold: Annotated[Rate, Moves()] = 0.5
    capacity: Annotated[float, Field(gt=0, le=1)] = Field(0.5, description="the share of tokens that is counted on")
    penalty: Annotated[Real, Free(), Moves(), Field(ge=0)] = Field(
        0.0, description="factor on the share that enters above capacity, a loss in training"
    )

    def infer(self, at: Place) -> Stream:
        x, score = at.one(), at.stream("score")
        if score is None:
            raise Refused("score", f"no stream is called {at.raw('score')!r}", "name a node {kind: project, width: 1}")
        if len(x.spans) != 1 or len(x.axes) != 1:
            raise Refused("", f"tokens are chosen along one axis, not from {x}")
        if score.width != 1 or score.spans != x.spans or score.content != "features":
            raise Refused("score", f"{at.raw('score')} is {score}; tokens are {x}", "one feature for each token")
        if score.ahead - x.ahead:
            raise Refused("score", f"{at.raw('score')} knows later tokens, {x} does not", "a score of each token alone")
        if self.threshold == 0:
            return x
        axis = x.axes[0]
        some = Axis(
            axis.name, f"{self.capacity:g}{SOME}", axis.causal, axis.limit or axis.most
        )  # coordinates keep the whole range
        return replace(x, spans=(Span(x.spans[0].name, (some,)),), placed=True, valid=True)
