"""Which places may still be chosen (schema in archspec.kinds.unused)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from archspec.kinds import unused as kinds
from compiler.build import Make
from compiler.registry import Leaf, builds
from compiler.tokens import Tokens


@builds(kinds.Unused)
class Unused(nn.Module):
    def __init__(self, spec: kinds.Unused, make: Make) -> None:
        super().__init__()
        self.out, self.left = make.node.output, Left()

    def forward(self, chosen: Tokens, tokens: Tokens) -> Tokens:
        return Tokens(self.left(chosen.features, tokens.features), self.out)


class Left(Leaf):
    """From choices ``[batch, steps]`` and ``[batch, tokens, 1]`` to ``[batch, steps * tokens, 1]``."""

    def forward(self, chosen: Tensor, tokens: Tensor) -> Tensor:
        hit = chosen[:, :, None] == torch.arange(tokens.shape[1], device=chosen.device)
        left = (hit.cumsum(dim=1) == 0) & (tokens[:, None, :, 0] > 0)
        return left.to(tokens.dtype).flatten(1).unsqueeze(-1)
