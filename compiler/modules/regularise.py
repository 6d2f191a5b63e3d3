"""What acts only in training, and gains (schemas in archspec.kinds.regularise)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from archspec.kinds import regularise as kinds
from compiler.build import Make, weight
from compiler.moving import Number, moved
from compiler.registry import Leaf, builds
from compiler.tokens import Tokens


def dropout(rate: float) -> nn.Module | None:
    """Dropout as a module, which a trace keeps; None for a rate of zero."""
    moving = moved(rate)
    return MovingDropout(moving) if moving is not None else nn.Dropout(rate) if rate else None


def dropped(drop: nn.Module | None, x: Tensor) -> Tensor:
    """Features after dropout, where there is any."""
    return x if drop is None else drop(x)


class MovingDropout(Leaf):
    """Dropout at a rate that moves."""

    def __init__(self, rate: Number) -> None:
        super().__init__()
        self.moving = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        rate = self.moving()
        return x * (torch.rand(x.shape, device=x.device) >= rate) / (1 - rate)


class SampleDrop(Leaf):
    """Sets whole samples to zero with the given chance in training, and scales up the others."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate, self.moving = rate, moved(rate)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        rate = self.rate if self.moving is None else self.moving()
        keep = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) >= rate
        return x * keep / (1 - rate)


@builds(kinds.Dropout)
class Dropout(nn.Module):
    def __init__(self, spec: kinds.Dropout, make: Make) -> None:
        super().__init__()
        self.drop = dropout(spec.rate)

    def forward(self, x: Tokens) -> Tensor:
        return dropped(self.drop, x.features)


@builds(kinds.DropPath)
class DropPath(nn.Module):
    def __init__(self, spec: kinds.DropPath, make: Make) -> None:
        super().__init__()
        self.drop = SampleDrop(spec.rate)

    def forward(self, x: Tokens) -> Tensor:
        out: Tensor = self.drop(x.features)
        return out


@builds(kinds.LayerScale)
class LayerScale(nn.Module):
    def __init__(self, spec: kinds.LayerScale, make: Make) -> None:
        super().__init__()
        self.weight = weight(1 if spec.single else make.stream.width)
        self.initial = {"weight": spec.init}

    def forward(self, x: Tokens) -> Tensor:
        return x.features * self.weight


@builds(kinds.Identity)
class Identity(nn.Module):
    def __init__(self, spec: kinds.Identity, make: Make) -> None:
        super().__init__()

    def forward(self, x: Tokens) -> Tensor:
        return x.features
