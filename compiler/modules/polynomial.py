"""Activations that are polynomials (schemas in archspec.kinds.polynomial)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kinds import polynomial as kinds
from compiler.build import Make, weight
from compiler.registry import builds
from compiler.tokens import Tokens


class Polynomial(nn.Module):
    def __init__(self, spec: kinds.Polynomial, make: Make) -> None:
        super().__init__()
        self.order = spec.order
        self.weight = weight(spec.order + 1)  # from the constant up
        self.initial = {"weight": [0.0] + [1 / spec.order] * spec.order}


@builds(kinds.PolyRelu)
class PolyRelu(Polynomial):
    def forward(self, x: Tokens) -> Tensor:
        base, y = F.relu(x.features), self.weight[self.order]
        for power in range(self.order - 1, -1, -1):  # Horner's rule
            y = y * base + self.weight[power]
        return y


@builds(kinds.PolyNorm)
class PolyNorm(Polynomial):
    def __init__(self, spec: kinds.PolyNorm, make: Make) -> None:
        super().__init__(spec, make)
        self.shape, self.eps = (make.stream.width,), spec.eps

    def forward(self, x: Tokens) -> Tensor:
        power, y = x.features, self.weight[0]
        for number in range(1, self.order + 1):
            y = y + self.weight[number] * F.rms_norm(power, self.shape, eps=self.eps)
            power = power * x.features
        return y
