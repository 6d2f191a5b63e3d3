"""Attention to near tokens and to segments of far ones (schema in archspec.kinds.combiner)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kinds import combiner as kinds
from compiler.build import Make, project
from compiler.modules.heads import Heads, fitting, masked
from compiler.registry import Keeper, builds
from compiler.tokens import Tokens


@builds(kinds.Combiner)
class Combiner(Heads):
    def __init__(self, spec: kinds.Combiner, make: Make) -> None:
        super().__init__(spec, make)
        self.attend = CombinerAttend(spec, self.head_width, causal=make.stream.causal)

    def forward(self, x: Tokens) -> Tensor:
        return project(self.out, self.attend(*self.queries_keys_values(x), x.valid), x)


class CombinerAttend(Keeper):
    """Attention of ``[batch, heads, tokens, width]``; gives ``[batch, tokens, heads * width]``."""

    def __init__(self, spec: kinds.Combiner, head_width: int, *, causal: bool) -> None:
        super().__init__()
        self.segment, self.pattern, self.dropout, self.causal = spec.segment, spec.pattern, spec.dropout, causal
        self.scale = 1 / math.sqrt(head_width)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        q, count, first = q * self.scale, q.shape[2], 0
        if self.decoding is not None and self.causal:
            kept, start = self.decoding.kept(self), self.decoding.start
            q, k, v = (self.decoding.append(kept, name, x, 2) for name, x in zip("qkv", (q, k, v), strict=True))
            first = 0 if start is not None else self.decoding.position // self.segment
            valid = None if start is None else torch.arange(q.shape[2], device=q.device) >= start[:, None]
        if valid is None:
            y = self.whole(q, k, v, torch.ones(1, q.shape[2], dtype=torch.bool, device=q.device), first)
        else:  # segments are of real tokens: padding goes to the end for the while
            valid = fitting(valid, q.shape[0])
            order = (~valid).int().argsort(dim=1, stable=True)
            rows = order[:, None, :, None]
            told = (x.gather(2, rows.expand_as(x)) for x in (q, k, v))
            y = self.whole(*told, valid.gather(1, order))
            y = torch.empty_like(y).scatter(2, rows.expand_as(y), y)
        return y[:, :, y.shape[2] - count :].transpose(1, 2).flatten(2)

    def whole(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor, first: int = 0) -> Tensor:
        """What tokens from the segment ``first`` on read; ``real [1 or batch, tokens]``, all of them at the front."""
        tokens, size = q.shape[2], min(self.segment, q.shape[2])
        segments = -(-tokens // size)
        if self.pattern == "logsparse":
            segments = 1 << (segments - 1).bit_length()
        fill = segments * size - tokens
        q, k, v = (F.pad(x, (0, 0, 0, fill)).unflatten(2, (segments, size)) for x in (q, k, v))
        real = F.pad(real, (0, fill)).unflatten(1, (segments, size))[:, None]
        here = torch.arange(first, segments, device=q.device)[:, None]
        asked = q[:, :, first:]
        seen = real[:, :, first:, None].expand(-1, -1, -1, size, -1)
        near = masked(asked @ k[:, :, first:].mT, seen.tril() if self.causal else seen)
        if self.pattern == "logsparse":
            keys, values, there, filled = self.runs(q, k, v, real)
            beside = here >> torch.arange(there.shape[0], device=q.device)
            chosen = (beside ^ 1) + there
            keys, values, filled = keys[:, :, chosen], values[:, :, chosen], filled[:, :, chosen]
            far, allowed = asked @ keys.mT, filled[..., None, :]
            if self.causal:
                allowed = allowed & (beside & 1 == 1)[:, None]
        else:
            other = torch.arange(segments, device=q.device)
            allowed = real.any(-1)[:, :, None, None] & (other < here if self.causal else other != here)[:, None]
            if self.pattern == "axial":
                values = F.scaled_dot_product_attention(q, k, v, attn_mask=readable(real), scale=1.0).transpose(2, 3)
                asked, keys = asked.transpose(2, 3), k.transpose(2, 3)
                far = (asked @ keys.mT).transpose(2, 3)
            else:
                keys, values, _ = summary(q, k, v, real)
                far = asked @ keys[:, :, None].mT
        scores = torch.cat((near, masked(far, allowed)), dim=-1)
        weights = F.dropout(scores.softmax(-1), self.dropout, self.training)
        near, far = weights.split((size, far.shape[-1]), dim=-1)
        y = near @ v[:, :, first:]
        if self.pattern == "axial":
            y = y + (far.transpose(2, 3) @ values).transpose(2, 3)
        else:
            y = y + far @ (values if self.pattern == "logsparse" else values[:, :, None])
        return y.flatten(2, 3)[:, :, : tokens - first * size]

    def runs(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Keys and values of runs of 1, 2, 4, … segments, where each length begins, and which runs hold a token."""
        levels, starts, total = [], [], 0
        while q.shape[2] > 1:
            levels.append(summary(q, k, v, real))
            starts.append(total)
            total += q.shape[2]
            q, k, v = (x.unflatten(2, (-1, 2)).flatten(3, 4) for x in (q, k, v))
            real = real.unflatten(2, (-1, 2)).flatten(3, 4)
        if not levels:
            nothing = q[:, :, :0, 0]
            return nothing, v[:, :, :0, 0], torch.zeros(0, dtype=torch.int64, device=q.device), real[:, :, :0, 0]
        keys, values, filled = (torch.cat(parts, dim=2) for parts in zip(*levels, strict=True))
        return keys, values, torch.tensor(starts, device=q.device), filled


def summary(q: Tensor, k: Tensor, v: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of segments ``[batch, heads, segments, tokens, width]`` key, expectation, and whether there is a token."""
    filled = real.any(-1)
    ask, key = (masked(x, real[..., None]).amax(3).masked_fill(~filled[..., None], 0.0) for x in (q, k))
    value = F.scaled_dot_product_attention(ask[:, :, :, None], k, v, attn_mask=readable(real), scale=1.0)
    return key, value.squeeze(3), filled


def readable(real: Tensor) -> Tensor:
    """A mask of keys under which a segment of padding stays finite."""
    return (real | ~real.any(-1, keepdim=True))[..., None, :]
