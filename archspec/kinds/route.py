"""Routed depth: some tokens enter a body and come back; the others pass."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field

from archspec.errors import Refused
from archspec.kind import Kind, Real, Slot
from archspec.kinds.combinator import BODY
from archspec.kinds.threshold import Threshold
from archspec.place import Place
from archspec.streams import SCALAR, Axis, Span, Stream


class ExpertChoice(Kind, kind="expert_choice", role="selector"):
    """The body chooses: the tokens with the highest scores enter, a fixed share of the sequence.

    Raposo et al. 2024, "Mixture-of-Depths", arXiv 2404.02258. Which tokens are the highest depends on later ones, so
    along a causal axis it cannot be decoded token by token as it is.
    """

    exempt = {"causality": "which tokens enter depends on the scores of all", "cached": "as causality"}
    capacity: Annotated[float, Field(gt=0, le=1)] = 0.5
    score: Literal["sigmoid", "tanh", "none"] = Field(
        "sigmoid", description="function of the score that weighs the body's work"
    )

    factor: Real = Field(1.0, description="multiplies the function of the score")

    def infer(self, at: Place) -> Stream:
        return chosen(at.one(), self.capacity)


class LabelSelector(Kind, kind="label_selector", role="selector"):
    """The tokens of some labels enter."""

    label: str
    values: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]

    def infer(self, at: Place) -> Stream:
        count = dict(at.one().labels).get(self.label)
        if count is None:
            raise Refused("label", f"tokens carry no label {self.label!r}", [name for name, _ in at.one().labels])
        for value in self.values:
            if value >= count:
                raise Refused("values", f"label {self.label!r} has the values 0 to {count - 1}, not {value}")
        return replace(at.one(), valid=True)


def chosen(x: Stream, capacity: float) -> Stream:
    """The type of the tokens that enter: fewer of them, each with its coordinate."""
    if len(x.spans) != 1 or len(x.axes) != 1:
        raise Refused("", f"tokens are chosen along one axis, not from {x}")
    if capacity == 1:
        return x
    axis = x.axes[0]
    size = max(1, int(axis.size * capacity)) if isinstance(axis.size, int) else f"{capacity:g}*{axis.size}"
    limit = axis.limit  # coordinates keep the whole range
    return replace(
        x, spans=(Span(x.spans[0].name, (Axis(axis.name, size, axis.causal, limit or axis.most),)),), placed=True
    )


class Route(Kind, kind="route"):
    """Takes some tokens, gives them to ``body`` and the others to ``rest``, and puts all back in their places.

    ``weigh`` says what a token's score multiplies: what the body adds to the token (``delta``), all that the body says,
    added to the token (``output``, Bae et al. 2025, arXiv 2507.10524), or nothing; then nothing teaches the router.
    """

    @property
    def incremental(self) -> bool:  # type: ignore[override]
        return isinstance(self.take, Mapping) and self.take.get("kind") == "threshold"

    take: Annotated[Any, Slot(("selector",))]
    body: Annotated[Any, BODY]
    rest: Annotated[Any, BODY] = Field(None, description="what the other tokens go through; they pass by default")
    weigh: Literal["delta", "output", "none"] = "delta"

    def infer(self, at: Place) -> dict[str, Stream]:
        x = at.one()
        take = at.slot("take", x)
        inside = take.output
        out = at.slot("body", inside).output
        if (out.width, out.spans) != (x.width, inside.spans):
            raise Refused("body", f"gives {out}; tokens must come back as {inside}")
        if at.has("rest"):
            rest = at.slot("rest", x).output
            if (rest.width, rest.spans) != (x.width, x.spans):
                raise Refused("rest", f"gives {rest}, not {x}")
        selector = take.nodes[0].kind
        return {"": x} | ({"loss": SCALAR} if isinstance(selector, Threshold) and selector.penalty else {})
