"""Heads (schema in archspec.kinds.heads): queries, keys and values of one stream, as one product where they can be."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from archspec.kinds import heads as kinds
from compiler.build import Make, project
from compiler.tokens import Tokens


class Heads(nn.Module):
    """The matrices ``query``, ``key``, ``value`` and ``out``."""

    def __init__(self, spec: kinds.Heads, make: Make) -> None:
        super().__init__()
        self.heads, self.inner = spec.heads, spec.inner(make.stream)
        self.head_width = self.inner // spec.heads
        self.qkv = None
        if make.plain("query", "key", "value"):
            self.qkv = make.fused("query", "key", "value")
        else:
            self.query, self.key, self.value = (make.linear(role) for role in ("query", "key", "value"))
        self.out = make.linear("out")

    def queries_keys_values(self, x: Tokens) -> tuple[Tensor, Tensor, Tensor]:
        """Each ``[batch, heads, tokens, width]``."""
        if self.qkv is None:
            q, k, v = (project(matrix, x.features, x) for matrix in (self.query, self.key, self.value))
        else:
            parts = self.qkv(x.features).split((self.inner, self.inner, self.inner), dim=-1)
            q, k, v = parts[0], parts[1], parts[2]
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
