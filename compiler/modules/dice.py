"""Dice (schema in archspec.kinds.dice)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from archspec.kinds import batch_norm
from archspec.kinds import dice as kinds
from compiler.build import Make, weight
from compiler.modules.batch_norm import Statistics
from compiler.registry import builds
from compiler.tokens import Tokens


@builds(kinds.Dice)
class Dice(nn.Module):
    def __init__(self, spec: kinds.Dice, make: Make) -> None:
        super().__init__()
        plain = batch_norm.BatchNorm.model_validate({"affine": False, "eps": spec.eps, "momentum": spec.momentum})
        self.norm = Statistics(plain, make.stream.width)
        self.alpha = weight(make.stream.width)
        self.initial = {"alpha": spec.alpha}

    def forward(self, x: Tokens) -> Tensor:
        share = torch.sigmoid(self.norm(x.features, x.valid))
        return x.features * (share + (1 - share) * self.alpha)
