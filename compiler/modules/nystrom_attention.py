"""Nyström attention (schema in archspec.kinds.nystrom_attention)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kinds import nystrom_attention as kinds
from compiler.build import Make, project, weight
from compiler.modules.heads import Heads, fitting, masked, pairs
from compiler.registry import Leaf, builds
from compiler.tokens import Tokens


@builds(kinds.NystromAttention)
class NystromAttention(Heads):
    def __init__(self, spec: kinds.NystromAttention, make: Make) -> None:
        super().__init__(spec, make)
        self.filter = None if spec.convolution is None else weight(spec.heads, 1, spec.convolution, 1)
        self.initial = {"filter": ("fan_in",)}
        self.attend = NystromAttend(spec, self.head_width)

    def forward(self, x: Tokens) -> Tensor:
        return project(self.out, self.attend(*self.queries_keys_values(x), self.filter, x.valid), x)


class NystromAttend(Leaf):
    """Attention by landmarks over ``[batch, heads, tokens, width]``; gives ``[batch, tokens, heads * width]``."""

    def __init__(self, spec: kinds.NystromAttention, head_width: int) -> None:
        super().__init__()
        self.landmarks, self.iterations = spec.landmarks, spec.iterations
        self.together, self.everywhere = spec.coefficient == "batch", spec.segments == "all"
        self.scale = 1 / math.sqrt(head_width)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, taps: Tensor | None, valid: Tensor | None) -> Tensor:
        mask = pairs(valid, q.shape[0])
        counted = None if self.everywhere or valid is None else fitting(valid, q.shape[0])
        if isinstance(self.landmarks, str):
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale)
        else:
            y = self.estimated(q, k, v, mask, counted, self.landmarks)
        if taps is not None:
            heard = v if counted is None else v * counted[:, None, :, None]
            y = y + F.conv2d(heard, taps, padding=(taps.shape[2] // 2, 0), groups=taps.shape[0])
        return y.transpose(1, 2).flatten(2)

    def estimated(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, counted: Tensor | None, landmarks: int
    ) -> Tensor:  # fmt: skip
        """The attention through landmarks; those of empty segments are left out."""
        if counted is None and q.shape[2] % landmarks == 0:
            empty = None
            q_mean, k_mean = (x.unflatten(2, (landmarks, -1)).mean(dim=3) for x in (q, k))
        else:
            shares, empty = segments(q, counted, landmarks)
            q_mean, k_mean = shares @ q, shares @ k
        lines, pairs = (self.weights(x, k_mean, None if empty is None else ~empty) for x in (q, q_mean))
        if empty is not None:  # an empty landmark is a block of its own, which nobody reads
            pairs = torch.where(empty.mT, torch.eye(landmarks, dtype=pairs.dtype, device=pairs.device), pairs)
        read = F.scaled_dot_product_attention(q_mean, k, v, attn_mask=mask, scale=self.scale)
        return lines @ (self.inverse(pairs) @ read)

    def weights(self, q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
        scores = q @ k.mT * self.scale
        return (scores if mask is None else masked(scores, mask)).softmax(dim=-1)

    def inverse(self, k: Tensor) -> Tensor:
        """The pseudo-inverse of matrices whose rows are weights, ``[batch, heads, landmarks, landmarks]``."""
        largest = k.sum(dim=-2).amax() if self.together else k.sum(dim=-2).amax(dim=-1)[..., None, None]
        one = torch.eye(k.shape[-1], dtype=k.dtype, device=k.device)
        z = k.mT / largest
        for _ in range(self.iterations):
            kz = k @ z
            z = z / 4 @ (13 * one - kz @ (15 * one - kz @ (7 * one - kz)))
        return z


def segments(like: Tensor, counted: Tensor | None, landmarks: int) -> tuple[Tensor, Tensor]:
    """Each landmark's share of every token, ``[batch or 1, 1, landmarks, tokens]``, and which landmarks have none."""
    if counted is None:
        counted = torch.ones(1, like.shape[2], dtype=torch.bool, device=like.device)
    total = counted.sum(dim=1, keepdim=True).clamp(min=1)
    place = (counted.cumsum(dim=1) - 1) * landmarks // total
    mine = (place[:, None] == torch.arange(landmarks, device=like.device)[:, None]) & counted[:, None]
    size = mine.sum(dim=-1, keepdim=True)
    return (mine / size.clamp(min=1)).to(like.dtype)[:, None], (size == 0)[:, None].mT
