"""Heads (schemas in archspec.kinds.head)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from archspec.kinds import head as kinds
from compiler.build import Make, weight
from compiler.registry import Leaf, builds
from compiler.tokens import Tokens


@builds(kinds.LmHead)
class LmHead(nn.Module):
    def __init__(self, spec: kinds.LmHead, make: Make) -> None:
        super().__init__()
        vocab, width = make.node.output.width, make.stream.width
        self.weight = weight(vocab, width)
        self.bias = weight(vocab) if spec.bias is True else None
        self.fixed = FixedBias(vocab) if spec.bias == "fixed" else None
        self.initial = {"weight": ("normal", spec.std) if spec.std is not None else ("scheme",), "bias": 0.0}
        self.softcap, self.scale = spec.softcap, spec.scale
        self.tied = make.node.tied

    def forward(self, x: Tokens) -> Tensor:
        logits = torch.nn.functional.linear(x.features, self.weight, self.bias)
        if self.scale != 1:
            logits = logits * self.scale
        if self.fixed is not None:
            logits = self.fixed(logits)
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


class FixedBias(Leaf):
    """Adds numbers that are stored with the weights and not trained; zero until they are loaded."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("bias", torch.empty(width, device="meta"))

    def fill(self) -> None:
        self.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias.to(x.dtype)


@builds(kinds.Classifier)
class Classifier(nn.Module):
    def __init__(self, spec: kinds.Classifier, make: Make) -> None:
        super().__init__()
        self.weight = weight(make.node.output.width, make.stream.width)
        self.bias = weight(make.node.output.width) if spec.bias else None
        self.initial = {"weight": ("scheme",), "bias": 0.0}
        self.flat = bool(make.stream.spans)

    def forward(self, x: Tokens) -> Tensor:
        features = x.features.flatten(1) if self.flat else x.features
        return torch.nn.functional.linear(features, self.weight, self.bias)
