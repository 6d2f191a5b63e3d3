"""Tokens by their place (schema in archspec.kinds.index_select)."""

from __future__ import annotations

from torch import Tensor, nn

from archspec.kinds import index_select as kinds
from compiler.build import Make
from compiler.registry import Leaf, builds
from compiler.tokens import Tokens


@builds(kinds.IndexSelect)
class IndexSelect(nn.Module):
    def __init__(self, spec: kinds.IndexSelect, make: Make) -> None:
        super().__init__()
        self.take = Take()

    def forward(self, x: Tokens, places: Tokens) -> Tokens:
        found = self.take(x.features, places.features)
        return places.give(found, places.stream.wide(x.stream.width))


class Take(Leaf):
    """Rows ``[batch, places, width]`` of ``[batch, tokens, width]`` at ``[batch, places]``."""

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        index = places.clamp(max=x.shape[1] - 1).unsqueeze(-1).expand(-1, -1, x.shape[-1])
        return x.gather(1, index)
