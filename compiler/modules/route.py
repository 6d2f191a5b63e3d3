"""Routed depth (schemas in archspec.kinds.route)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from archspec.kinds import route as kinds
from compiler.build import Make, main, weight
from compiler.registry import Leaf, builds
from compiler.tokens import Tokens

Outer = Mapping[str, Tokens]


@builds(kinds.ExpertChoice)
class ExpertChoice(nn.Module):
    """Scores tokens and takes the best; gives them with their places in the stream and their weights."""

    def __init__(self, spec: kinds.ExpertChoice, make: Make) -> None:
        super().__init__()
        self.all = spec.capacity == 1
        self.out = make.node.output
        if not self.all:
            self.weight = weight(1, make.stream.width)
            self.initial = {"weight": ("scheme",)}
            self.take = Take(spec)

    def select(self, x: Tokens, length: Tensor) -> tuple[Tokens, Tensor | None, Tensor | None]:
        """The chosen tokens, their places ``[batch, chosen]`` and weights ``[batch, chosen, 1]``.

        ``length`` is a tensor whose dimension 1 is the sequence of which the capacity is a share.
        """
        if self.all:
            return x, None, None
        places, weights = self.take(torch.nn.functional.linear(x.features, self.weight), x.valid, length)
        return gather(x, places, self.out), places, weights


class Take(Leaf):
    """The places of the highest scores ``[batch, tokens, 1]`` in their order, and a function of these scores."""

    def __init__(self, spec: kinds.ExpertChoice) -> None:
        super().__init__()
        self.capacity, self.score, self.factor = spec.capacity, spec.score, spec.factor

    def forward(self, scores: Tensor, valid: Tensor | None, whole: Tensor) -> tuple[Tensor, Tensor]:
        ranking = scores[..., 0]
        if valid is not None:
            ranking = ranking.masked_fill(~valid, float("-inf"))
        count = min(ranking.shape[1], max(1, int(whole.shape[1] * self.capacity)))
        places = ranking.topk(count, dim=1).indices.sort(dim=1).values
        kept = scores.gather(1, places[..., None])
        if self.score == "none":
            return places, torch.full_like(kept, self.factor)
        return places, self.factor * (kept.sigmoid() if self.score == "sigmoid" else kept.tanh())


def gather(x: Tokens, places: Tensor, stream: object) -> Tokens:
    """Tokens at some places, each with its coordinate."""
    rows = places[..., None].expand(-1, -1, x.features.shape[-1])

    def pick(values: Tensor | None) -> Tensor | None:
        return None if values is None else values.expand(x.features.shape[:2]).gather(1, places)

    return replace(
        x,
        features=x.features.gather(1, rows),
        stream=stream,  # type: ignore[arg-type]
        coordinates=places if x.coordinates is None else pick(x.coordinates),
        valid=pick(x.valid),
        segment=pick(x.segment),
        labels={name: value.expand(x.features.shape[:2]).gather(1, places) for name, value in x.labels.items()},
    )


def scatter(x: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """``[batch, tokens, width]`` with the rows at ``places`` replaced."""
    return x.scatter(1, places[..., None].expand(-1, -1, x.shape[-1]), values)


@builds(kinds.LabelSelector)
class LabelSelector(nn.Module):
    """Marks the tokens of some labels as the only valid ones."""

    def __init__(self, spec: kinds.LabelSelector, make: Make) -> None:
        super().__init__()
        self.label, self.values, self.out = spec.label, spec.values, make.node.output

    def entering(self, x: Tokens) -> Tensor:
        """``[batch, tokens]``, true for tokens that enter."""
        labels = x.labels[self.label]
        inside = labels == self.values[0]
        for value in self.values[1:]:
            inside = inside | (labels == value)
        return inside


@builds(kinds.Route)
class Route(nn.Module):
    def __init__(self, spec: kinds.Route, make: Make) -> None:
        super().__init__()
        self.weigh = spec.weigh
        self.take = make.body("take")
        self.body = make.body("body")
        self.rest = make.body("rest") if make.has("rest") else None

    def forward(self, x: Tokens, outer: Outer) -> Tokens:
        passing = x if self.rest is None else main(self.rest, x, outer=outer)
        if isinstance(self.take, LabelSelector):
            inside = self.take.entering(x)
            seen = inside if x.valid is None else inside & x.valid
            out = main(self.body, replace(x, stream=self.take.out, valid=seen), outer=outer)
            return x.give(torch.where(inside[..., None], out.features, passing.features), x.stream)
        if not isinstance(self.take, ExpertChoice):
            threshold: Any = self.take

            def run(inside: Tokens) -> Tensor:
                return main(self.body, inside, outer=outer).features

            return x.give(threshold.routed(run, x, passing.features, self.weigh, outer), x.stream)
        return x.give(routed(self.take, self.body, x, passing.features, self.weigh, outer), x.stream)


def routed(
    take: ExpertChoice, body: nn.Module, x: Tokens, passing: Tensor, weigh: str, outer: Outer
) -> Tensor:  # fmt: skip
    """Runs a body on the chosen tokens; the features of all."""
    inside, places, weights = take.select(x, x.features)
    out = main(body, inside, outer=outer).features
    if places is None or weights is None:
        return out
    return scatter(passing, places, weighed(weigh, inside.features, out, weights))


def weighed(weigh: str, before: Tensor, after: Tensor, weights: Tensor) -> Tensor:
    """What a token becomes: ``weigh`` as in `archspec.kinds.route.Route`."""
    if weigh == "none":
        return after
    return before + weights * (after - before if weigh == "delta" else after)
