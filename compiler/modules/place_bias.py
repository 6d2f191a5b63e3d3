"""Biases by the memory's place (schema in archspec.kinds.place_bias)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from archspec.kinds import place_bias as kinds
from compiler.build import Make, weight
from compiler.modules.position import table
from compiler.registry import Keeper, builds


@builds(kinds.SinusoidalBias)
class SinusoidalBias(Keeper):
    """Biases ``[1 or batch, heads, 1, memory]``."""

    def __init__(self, spec: kinds.SinusoidalBias, make: Make) -> None:
        super().__init__()
        self.spec_, self.causal = spec, make.stream.causal
        table(self, "waves", make.stream.most or spec.length or 0, spec.width)

    def sized(self, heads: int) -> None:
        """Fixes the number of heads."""
        self.weight = weight(heads, self.spec_.width)
        self.initial = {"weight": ("normal", self.spec_.std)}

    def fill(self) -> None:
        count = self.spec_.width // 2
        rates = (-math.log(self.spec_.base) / count * torch.arange(count, dtype=torch.float64)).exp()
        angles = torch.arange(self.waves.shape[0], dtype=torch.float64)[:, None] * rates
        self.waves.copy_(torch.cat((angles.sin(), angles.cos()), dim=-1))

    def forward(self, q: Tensor, k: Tensor, q_place: Tensor | None, k_place: Tensor | None) -> Tensor:
        if self.decoding is not None and self.causal:
            place = torch.arange(self.decoding.position + k.shape[1], device=k.device)[None]
            if self.decoding.start is not None:
                place = (place - self.decoding.start[:, None]).clamp(min=0)
            rows = self.waves[place]
        else:
            rows = self.waves[None, : k.shape[1]] if k_place is None else self.waves[k_place]
        return (rows.to(q.dtype) @ self.weight.t().to(q.dtype)).transpose(1, 2)[:, :, None]
