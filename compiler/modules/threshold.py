"""Tokens that enter a body by their own score (schema in archspec.kinds.threshold)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from archspec.kinds import threshold as kinds
from compiler.build import LOSSES, Make
from compiler.modules.route import gather
from compiler.moving import now, number
from compiler.registry import Keeper, Leaf, builds
from compiler.tokens import Tokens


@builds(kinds.Threshold)
class Threshold(nn.Module):
    def __init__(self, spec: kinds.Threshold, make: Make) -> None:
        super().__init__()
        self.all, self.loses = spec.threshold == 0, bool(spec.penalty)
        self.score, self.out = make.node.streams["score"], make.node.output
        if not self.all:
            self.enter, self.back = Enter(spec), Back()

    def routed(
        self, run: Callable[[Tokens], Tensor], x: Tokens, passing: Tensor, weigh: str, outer: Mapping[str, Tokens]
    ) -> Tensor:
        """The features of all tokens, given what the others become, and a body as a function of those that enter."""
        if self.all:
            return run(x)
        chosen = self.enter(outer[self.score].features, x.valid)
        places, real, slope, coordinates = chosen[0], chosen[1], chosen[2], chosen[3]
        inside = replace(gather(x, places, self.out), valid=real)
        if x.coordinates is None:
            inside = replace(inside, coordinates=coordinates)
        out = run(inside)
        if weigh == "output":
            out = inside.features + out
        losses = LOSSES.get()
        if self.loses and losses is not None:
            losses.append(chosen[4])
        back: Tensor = self.back(passing, places, real, slope if weigh != "none" else slope.detach(), out)
        return back


class Enter(Keeper):
    """Which tokens enter, given scores ``[batch, tokens, 1]``.

    Gives places ``[batch, most]``, in each row those of the tokens that enter and some others to fill up, which of them
    enter, ``[batch, most, 1]`` zeros that have the gradient of the sigmoid, coordinates, and the loss. In training, and
    in a ``static`` form, all tokens have a place.
    """

    def __init__(self, spec: kinds.Threshold) -> None:
        super().__init__()
        self.threshold, self.penalty, self.capacity = number(spec.threshold), number(spec.penalty), spec.capacity
        self.static = False

    def forward(self, scores: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        length = scores.shape[1]
        decoding = self.decoding if self.goes_on else None
        valid = valid if decoding is None else decoding.real(length)
        shares = scores[..., 0].sigmoid()
        enter = shares >= now(self.threshold)
        counted = torch.ones_like(enter) if valid is None else valid.expand_as(enter)
        enter = enter & counted
        most = length if self.training or self.static else self.most(enter)
        places = (~enter).to(torch.uint8).argsort(dim=1, stable=True)[:, :most].sort(dim=1).values
        slope = shares - shares.detach()
        share = self.over_all((enter + slope * counted).sum()) / self.over_all(counted.sum())
        loss = now(self.penalty) * (share - self.capacity).relu()
        at = places if decoding is None else decoding.places(length, places.device).expand_as(enter).gather(1, places)
        return places, enter.gather(1, places), slope.gather(1, places)[..., None], at, loss

    def most(self, enter: Tensor) -> int:
        """The most that enter of a sequence; on the meta device, where nobody does, the share that is counted on."""
        if enter.is_meta:
            return max(1, round(enter.shape[1] * self.capacity))
        return int(enter.sum(1).max())


class Back(Leaf):
    """Puts what a body made of tokens back, ``[batch, most, width]``; those that did not enter pass.

    In training the result has the gradient of what would have been, had a token entered a little more.
    """

    def forward(self, passing: Tensor, places: Tensor, real: Tensor, slope: Tensor, out: Tensor) -> Tensor:
        rows = places[..., None].expand(-1, -1, passing.shape[-1])
        before = passing.gather(1, rows)
        after = torch.where(real[..., None], out, before)
        if self.training:
            after = after + slope * (out - before)
        return passing.scatter(1, rows, after)
