"""What depends on places alone (schemas in archspec.kinds.places)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from archspec.kinds import places as kinds
from archspec.streams import Stream
from compiler.build import Make, weight
from compiler.modules.position import table
from compiler.registry import Keeper, builds
from compiler.tokens import Tokens


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


@builds(kinds.LogPlaceScale)
class LogPlaceScale(nn.Module):
    def __init__(self, spec: kinds.LogPlaceScale, make: Make) -> None:
        super().__init__()
        self.gain = weight(1)
        self.initial = {"gain": 0.0}
        self.logs = Logs(make.stream)

    def forward(self, x: Tokens) -> Tensor:
        return x.features * (1 + self.gain * self.logs(x.features, x.coordinates))


class Logs(Keeper):
    """``log(1 + place)`` of tokens ``[batch, tokens, width]``, ``[1 or batch, tokens, 1]``."""

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self.causal = stream.causal

    def forward(self, x: Tensor, place: Tensor | None) -> Tensor:
        if self.decoding is not None and self.causal:
            place = self.decoding.places(x.shape[1], x.device)
        elif place is None:
            place = torch.arange(x.shape[1], device=x.device)[None]
        return place.float().log1p().to(x.dtype)[..., None]
