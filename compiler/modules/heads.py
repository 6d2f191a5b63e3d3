"""Heads (schema in archspec.kinds.heads): queries, keys and values of one stream, as one product where they can be."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from archspec.kinds import heads as kinds
from compiler.build import Make, project
from compiler.tokens import Tokens


class Heads(nn.Module):
    """The matrices ``query``, ``key``, ``value`` and ``out``.

    Args:
        apart: keys and values come from another stream than queries.
    """

    def __init__(self, spec: kinds.Heads, make: Make, *, apart: bool = False) -> None:
        super().__init__()
        self.heads, self.inner = spec.heads, spec.inner(make.stream)
        self.head_width = self.inner // spec.heads
        self.qkv = self.kv = None
        if not apart and make.plain("query", "key", "value"):
            self.qkv = make.fused("query", "key", "value")
        else:
            self.query = make.linear("query")
            if make.plain("key", "value"):
                self.kv = make.fused("key", "value")
            else:
                self.key, self.value = make.linear("key"), make.linear("value")
        self.out = make.linear("out")

    def queries_keys_values(self, x: Tokens, memory: Tokens | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Each ``[batch, heads, tokens, width]``; keys and values of the memory, if there is one."""
        memory = memory or x
        if self.qkv is not None:
            parts = self.qkv(x.features).split((self.inner, self.inner, self.inner), dim=-1)
            return self.split(parts[0]), self.split(parts[1]), self.split(parts[2])
        q = project(self.query, x.features, x)
        if self.kv is not None:
            parts = self.kv(memory.features).split((self.inner, self.inner), dim=-1)
            return self.split(q), self.split(parts[0]), self.split(parts[1])
        k, v = (project(matrix, memory.features, memory) for matrix in (self.key, self.value))
        return self.split(q), self.split(k), self.split(v)

    def split(self, x: Tensor) -> Tensor:
        """``[batch, tokens, inner]`` as ``[batch, heads, tokens, width]``."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def fitting(mask: Tensor, batch: int) -> Tensor:
    """``[batch, tokens]`` of a mask for one sample, or for the samples of which a batch holds groups."""
    return mask if mask.shape[0] == batch else mask.repeat(batch // mask.shape[0], 1)


def pairs(valid: Tensor | None, batch: int) -> Tensor | None:
    """``[batch, 1, 1, tokens]``: which tokens may be read."""
    return None if valid is None else fitting(valid, batch)[:, None, None]


def masked(scores: Tensor, seen: Tensor) -> Tensor:
    """Scores of what may be read; a row that may read nothing stays finite."""
    return scores.masked_fill(~seen, torch.finfo(scores.dtype).min)


def addend(seen: Tensor, like: Tensor) -> Tensor:
    """What is added to scores so that only what is seen counts; a row that sees nothing stays finite."""
    none = torch.zeros((), dtype=like.dtype, device=like.device)
    return torch.where(seen, none, torch.finfo(like.dtype).min)


def repeated(rows: Tensor, x: Tensor) -> Tensor:
    """Rows ``[1 or batch, …]`` for the samples of x, which may be groups of those of a batch."""
    return rows if rows.shape[0] in (1, x.shape[0]) else rows.repeat(x.shape[0] // rows.shape[0], 1, 1, 1)
