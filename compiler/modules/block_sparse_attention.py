"""Block-sparse attention (schema in archspec.kinds.block_sparse_attention)."""

from __future__ import annotations

import math
from functools import cache
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kinds import block_sparse_attention as kinds
from compiler.build import Make, project
from compiler.modules.heads import Heads, addend, fitting, pairs
from compiler.registry import Leaf, builds
from compiler.tokens import Tokens


@builds(kinds.BlockSparseAttention)
class BlockSparseAttention(Heads):
    def __init__(self, spec: kinds.BlockSparseAttention, make: Make) -> None:
        super().__init__(spec, make)
        self.attend = BlockSparseAttend(spec, self.head_width)

    def forward(self, x: Tokens) -> Tensor:
        return project(self.out, self.attend(*self.queries_keys_values(x), x.valid), x)


class BlockSparseAttend(Leaf):
    """Attention of ``[batch, heads, tokens, width]`` by blocks; gives ``[batch, tokens, heads * width]``.

    Attributes:
        always, training_only: how many random blocks there are, and how many more of them in training.
    """

    def __init__(self, spec: kinds.BlockSparseAttention, head_width: int) -> None:
        super().__init__()
        self.size, self.seed, self.dropout = spec.block, spec.seed, spec.dropout
        self.longest = (5 + 2 * spec.random) * spec.block  # of the sequences that are read whole
        first = spec.evaluation == "first"
        self.always, self.training_only = (0, spec.random) if first else (spec.random, 0)
        self.scale = 1 / math.sqrt(head_width)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        batch, heads, tokens, width = q.shape
        rate = self.dropout if self.training else 0.0
        if tokens <= self.longest:
            mask = pairs(valid, batch)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale, dropout_p=rate)
            return y.transpose(1, 2).flatten(2)
        size, fill = self.size, -tokens % self.size
        seen = torch.ones(batch, tokens, dtype=torch.bool, device=q.device) if valid is None else fitting(valid, batch)
        q, k, v = (F.pad(x, (0, 0, 0, fill)) for x in (q, k, v))
        seen = F.pad(seen, (0, fill))
        ends = torch.cat((q[:, :, :size], q[:, :, -size:]), dim=2)
        ends = F.scaled_dot_product_attention(ends, k, v, attn_mask=pairs(seen, batch), scale=self.scale,
                                              dropout_p=rate)  # fmt: skip
        middle = self.middle(q[:, :, size:-size], k, v, seen, rate)
        y = torch.cat((ends[:, :, :size], middle, ends[:, :, size:]), dim=2)
        return y[:, :, :tokens].transpose(1, 2).flatten(2)

    def middle(self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor, rate: float) -> Tensor:
        """What the blocks between the first and the last read: neighbours, both ends, random blocks."""
        size, batch, heads = self.size, q.shape[0], q.shape[1]
        blocks = q.unflatten(2, (-1, size)).transpose(1, 2)  # [batch, blocks, heads, tokens, width]
        count = blocks.shape[1]
        edge = torch.zeros(count, 3 * size, dtype=torch.bool, device=q.device)  # of the window, which the ends cover
        edge[0, :size] = edge[-1, -size:] = True
        bias = [addend(seen.unfold(1, 3 * size, size) & ~edge, q)]  # [batch, blocks, keys]
        read = [[x.unfold(2, 3 * size, size).permute(0, 2, 1, 4, 3)] for x in (k, v)]
        ends = addend(torch.cat((seen[:, :size], seen[:, -size:]), dim=1), q)
        if self.training_only and not self.training:
            ends[:, :size] += math.log(1 + self.training_only)  # the first block is read so many times
        bias.append(ends[:, None].expand(-1, count, -1))
        for parts, x in zip(read, (k, v), strict=True):
            far = torch.cat((x[:, :, :size], x[:, :, -size:]), dim=2)
            parts.append(far[:, None].expand(-1, count, -1, -1, -1))
        bias = [part[:, :, None].expand(-1, -1, heads, -1) for part in bias]
        drawn = int(self.always or (self.training_only if self.training else 0))
        if drawn:
            chosen = torch.tensor(pattern(count, heads, drawn, self.seed), device=q.device)
            head = torch.arange(heads, device=q.device)[:, None, None]
            for parts, x in zip(read, (k, v), strict=True):
                parts.append(x.unflatten(2, (-1, size))[:, head, chosen].flatten(3, 4).transpose(1, 2))
            real = seen.unflatten(1, (-1, size))[:, chosen].flatten(3).transpose(1, 2)
            bias.append(addend(real, q))
        keys, values = (torch.cat(parts, dim=3).flatten(0, 1) for parts in read)
        mask = torch.cat(bias, dim=3).flatten(0, 1)[:, :, None].expand(-1, -1, size, -1)
        y = F.scaled_dot_product_attention(blocks.flatten(0, 1), keys, values, attn_mask=mask, scale=self.scale,
                                           dropout_p=rate)  # fmt: skip
        return y.unflatten(0, (batch, count)).transpose(1, 2).flatten(2, 3)


@cache
def pattern(count: int, heads: int, drawn: int, seed: int) -> list[list[list[int]]]:
    """For each head and each block between the first and the last: some of the blocks that it does not read anyway."""
    draw = Random(seed)
    others = range(1, count + 1)
    return [
        [draw.sample([other for other in others if abs(other - here) > 1], drawn) for here in others]
        for _ in range(heads)
    ]
