"""Standardized samples (schemas in archspec.kinds.standardize)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from archspec.kinds import standardize as kinds
from compiler.build import Make
from compiler.registry import builds
from compiler.tokens import Tokens


@builds(kinds.Standardize)
class Standardize(nn.Module):
    def __init__(self, spec: kinds.Standardize, make: Make) -> None:
        super().__init__()
        self.eps, self.statistics = spec.eps, make.node.outputs["statistics"]

    def forward(self, x: Tokens) -> dict[str, Tokens]:
        every = x.features.flatten(1)
        if x.valid is None:
            mean = every.mean(1)
            variance = (every - mean[:, None]).square().mean(1)
        else:
            real = x.valid.expand(x.features.shape[:2])[..., None].expand(x.features.shape).flatten(1).to(every.dtype)
            count = real.sum(1).clamp(min=1)
            mean = (every * real).sum(1) / count
            variance = ((every - mean[:, None]).square() * real).sum(1) / count
        statistics = torch.stack((mean, (variance + self.eps).sqrt()), dim=-1)
        made = (x.features - statistics[:, None, :1]) / statistics[:, None, 1:]
        return {"": x.give(made, x.stream), "statistics": Tokens(statistics, self.statistics)}


@builds(kinds.Restore)
class Restore(nn.Module):
    def __init__(self, spec: kinds.Restore, make: Make) -> None:
        super().__init__()

    def forward(self, x: Tokens, statistics: Tokens) -> Tensor:
        found = statistics.features
        if x.stream.spans:
            found = found[:, None]
        return x.features * found[..., 1:] + found[..., :1]
