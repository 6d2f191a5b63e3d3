"""Delays (schema in archspec.kinds.delay)."""

from __future__ import annotations

from torch import Tensor, nn

from archspec.kinds import delay as kinds
from compiler.build import Make
from compiler.modules.convolution import Past
from compiler.registry import builds
from compiler.tokens import Tokens


@builds(kinds.Delay)
class Delay(nn.Module):
    def __init__(self, spec: kinds.Delay, make: Make) -> None:
        super().__init__()
        self.by, self.past = spec.by, Past(spec.by)

    def forward(self, x: Tokens) -> Tensor:
        whole: Tensor = self.past(x.features.transpose(1, 2))
        return whole[:, :, : -self.by].transpose(1, 2)
