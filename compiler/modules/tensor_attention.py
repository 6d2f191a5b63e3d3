"""Attention of third order (schema in archspec.kinds.tensor_attention)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from archspec.kinds import tensor_attention as kinds
from compiler.build import Make, project
from compiler.modules.heads import masked, pairs
from compiler.registry import Keeper, builds
from compiler.tokens import Tokens

ROLES = ("query", "key", "key_2", "value", "value_2")


@builds(kinds.TensorAttention)
class TensorAttention(nn.Module):
    def __init__(self, spec: kinds.TensorAttention, make: Make) -> None:
        super().__init__()
        self.heads, self.inner = spec.heads, spec.inner(make.stream)
        self.fused = make.fused(*ROLES) if make.plain(*ROLES) else None
        for role in () if self.fused is not None else ROLES:
            self.add_module(role, make.linear(role))
        self.attend = TensorAttend(spec.heads, self.inner // spec.heads, causal=make.stream.causal)
        self.out = make.linear("out")

    def forward(self, x: Tokens) -> Tensor:
        if self.fused is not None:
            made = self.fused(x.features)
        else:
            made = torch.cat([project(getattr(self, role), x.features, x) for role in ROLES], dim=-1)
        return project(self.out, self.attend(made, x.valid), x)


class TensorAttend(Keeper):
    """Reads ``[batch, tokens, 5 * heads * width]``, a token's query, keys and values side by side."""

    def __init__(self, heads: int, width: int, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal, self.scale = heads, causal, 1 / math.sqrt(width)

    def forward(self, made: Tensor, valid: Tensor | None) -> Tensor:
        parts = made.unflatten(-1, (5, self.heads, -1)).permute(2, 0, 3, 1, 4)  # [5, batch, heads, tokens, width]
        query, told, count, start = parts[0], parts[1:], made.shape[1], 0
        seen = pairs(valid, made.shape[0])
        if self.decoding is not None and self.causal:
            start = self.decoding.position
            told = self.decoding.append(self.decoding.kept(self), "told", told, 3)
            first = self.decoding.start
            there = torch.arange(told.shape[3], device=made.device)
            seen = None if first is None else (there >= first[:, None])[:, None, None]
        if self.causal:
            here = torch.arange(start, start + count, device=made.device)[:, None]
            there = torch.arange(told.shape[3], device=made.device)
            before = (there <= here)[None, None]
            seen = before if seen is None else seen & before | (there == here)  # padding reads itself
        key, key_2, value, value_2 = told.unbind()
        scores = (query[..., None, :] * key[:, :, None]) @ key_2[:, :, None].mT * self.scale  # queries, pairs
        if seen is not None:
            scores = masked(scores, seen[..., None] & seen[..., None, :])
        weights = scores.flatten(-2).softmax(-1).view_as(scores)
        y = ((weights @ value_2[:, :, None]) * value[:, :, None]).sum(3)
        return y.transpose(1, 2).flatten(2)
