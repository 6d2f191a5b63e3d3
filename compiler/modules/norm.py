"""Norms (schemas in archspec.kinds.norm)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kinds import norm as kinds
from compiler.build import Make, weight
from compiler.registry import builds
from compiler.tokens import Tokens


@builds(kinds.LayerNorm)
class LayerNorm(nn.Module):
    def __init__(self, spec: kinds.LayerNorm, make: Make) -> None:
        super().__init__()
        self.shape, self.eps, self.offset, self.group = (make.stream.width,), spec.eps, spec.offset, spec.group_size
        self.weight = weight(*self.shape) if spec.affine else None
        self.bias = weight(*self.shape) if spec.affine and spec.bias else None
        self.initial = {"weight": 1.0 - spec.offset, "bias": 0.0}

    def forward(self, x: Tokens) -> Tensor:
        scale = self.weight
        if scale is not None and self.offset:
            scale = scale + self.offset
        if self.group is None:
            return F.layer_norm(x.features, self.shape, scale, self.bias, self.eps)
        y = F.layer_norm(x.features.unflatten(-1, (-1, self.group)), (self.group,), None, None, self.eps).flatten(-2)
        y = y if scale is None else y * scale
        return y if self.bias is None else y + self.bias


@builds(kinds.RmsNorm)
class RmsNorm(nn.Module):
    def __init__(self, spec: kinds.RmsNorm, make: Make) -> None:
        super().__init__()
        self.shape, self.eps, self.offset, self.group = (make.stream.width,), spec.eps, spec.offset, spec.group_size
        self.weight = weight(*self.shape) if spec.affine else None
        self.initial = {"weight": 1.0 - spec.offset}

    def forward(self, x: Tokens) -> Tensor:
        scale = self.weight
        if scale is not None and self.offset:
            scale = scale + self.offset
        if self.group is None:
            return F.rms_norm(x.features, self.shape, scale, self.eps)
        y = F.rms_norm(x.features.unflatten(-1, (-1, self.group)), (self.group,), None, self.eps).flatten(-2)
        return y if scale is None else y * scale
