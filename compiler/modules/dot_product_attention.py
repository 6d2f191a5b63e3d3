"""Attention between three streams (schema in archspec.kinds.dot_product_attention)."""

from __future__ import annotations

import math

from torch import Tensor, nn

from archspec.kinds import dot_product_attention as kinds
from compiler.build import Make
from compiler.modules.heads import pairs
from compiler.modules.kernel import attention
from compiler.registry import Leaf, builds
from compiler.tokens import Tokens


@builds(kinds.DotProductAttention)
class DotProductAttention(nn.Module):
    def __init__(self, spec: kinds.DotProductAttention, make: Make) -> None:
        super().__init__()
        self.out = make.node.output
        self.read = Read(spec.heads, spec.scale or 1 / math.sqrt(make.stream.width // spec.heads))

    def forward(self, query: Tokens, keys: Tokens, values: Tokens) -> Tokens:
        return query.give(self.read(query.features, keys.features, values.features, keys.valid), self.out)


class Read(Leaf):
    """``[batch, tokens, heads * width]`` each."""

    def __init__(self, heads: int, scale: float) -> None:
        super().__init__()
        self.heads, self.scale = heads, scale

    def forward(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        heads = [x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v)]
        y = attention(heads[0], heads[1], heads[2], pairs(valid, q.shape[0]), scale=self.scale)
        return y.transpose(1, 2).flatten(2)
