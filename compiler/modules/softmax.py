"""Features as shares of one (schema in archspec.kinds.softmax)."""

from __future__ import annotations

from torch import Tensor, nn

from archspec.kinds import softmax as kinds
from compiler.build import Make
from compiler.registry import builds
from compiler.tokens import Tokens


@builds(kinds.Softmax)
class Softmax(nn.Module):
    def __init__(self, spec: kinds.Softmax, make: Make) -> None:
        super().__init__()

    def forward(self, x: Tokens) -> Tensor:
        return x.features.softmax(dim=-1)
