"""Biases by distance (schemas in archspec.kinds.relative)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from archspec.kinds import relative as kinds
from compiler.build import Make, weight
from compiler.modules.position import table
from compiler.registry import Keeper, builds
from compiler.tokens import Tokens


class Distances(Keeper):
    """A bias that depends on distances.

    While decoding, the distance between two tokens is that of their indices; padding before them changes nothing.
    """

    causal: bool

    def distances(self, q: Tensor, k: Tensor, q_place: Tensor | None, k_place: Tensor | None) -> Tensor:
        """``[1 or batch, queries, memory]``: places of the memory minus those of the queries."""
        if self.decoding is not None and self.causal:
            end = self.decoding.position + k.shape[1]
            places = torch.arange(end, device=k.device)[None]
            return places[:, None, :] - places[:, end - q.shape[1] :, None]
        a = torch.arange(q.shape[1], device=q.device)[None] if q_place is None else q_place
        b = torch.arange(k.shape[1], device=k.device)[None] if k_place is None else k_place
        return b[:, None, :] - a[:, :, None]


@builds(kinds.BucketedBias)
class BucketedBias(Distances):
    """Biases ``[1 or batch, heads, queries, memory]``; ``bucket`` has that of each distance up to the reach."""

    def __init__(self, spec: kinds.BucketedBias, make: Make) -> None:
        super().__init__()
        self.buckets, self.reach, self.std = spec.buckets, spec.reach, spec.std
        self.causal = make.stream.causal
        self.side = spec.buckets // spec.sides(make.stream)
        table(self, "bucket", spec.reach + 1, dtype=torch.int64)

    def sized(self, heads: int) -> None:
        """Fixes the number of heads."""
        self.weight = weight(self.buckets, heads)
        self.initial = {"weight": ("normal", self.std)}

    def fill(self) -> None:
        exact = self.side // 2
        distance = torch.arange(self.reach + 1)
        share = torch.log(distance.clamp(min=1).float() / exact) / math.log(self.reach / exact)
        wide = exact + (share * (self.side - exact)).long()
        self.bucket.copy_(torch.where(distance < exact, distance, wide.clamp(max=self.side - 1)))

    def forward(self, q: Tensor, k: Tensor, q_place: Tensor | None, k_place: Tensor | None) -> Tensor:
        distance = self.distances(q, k, q_place, k_place)
        if self.causal:
            index = self.bucket[(-distance).clamp(0, self.reach)]
        else:
            index = self.bucket[distance.abs().clamp(max=self.reach)] + (distance > 0) * self.side
        return self.weight.t()[:, index].transpose(0, 1)


@builds(kinds.PositionBias)
class PositionBias(nn.Module):
    """``[1 or batch, queries * memory, heads]``, laid out head by head, as attention wants it."""

    def __init__(self, spec: kinds.PositionBias, make: Make) -> None:
        super().__init__()
        self.position = make.body("position")
        self.position.sized(spec.heads)  # type: ignore[operator]
        self.out = make.node.output

    def forward(self, x: Tokens, outer: object = None) -> Tokens:
        bias = self.position(x.features, x.features, x.coordinates, x.coordinates)
        return Tokens(bias.flatten(2).transpose(1, 2), self.out)
