"""Attention inside clusters (schema in archspec.kinds.cluster_attention)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kinds import cluster_attention as kinds
from compiler.build import Make, project
from compiler.modules.heads import pairs
from compiler.modules.kernel import attention, blocks
from compiler.registry import Keeper, builds
from compiler.tokens import Tokens

ALONE = -1e4
"""A score so low that only a token that may read no other one reads itself."""


@builds(kinds.ClusterAttention)
class ClusterAttention(nn.Module):
    def __init__(self, spec: kinds.ClusterAttention, make: Make) -> None:
        super().__init__()
        self.heads = spec.heads
        self.fused = make.fused("query", "value") if make.plain("query", "value") else None
        if self.fused is None:
            self.query, self.value = make.linear("query"), make.linear("value")
        self.attend = ClusterAttend(spec, spec.inner(make.stream) // spec.heads, causal=make.stream.causal)
        self.out = make.linear("out")

    def forward(self, x: Tokens) -> Tensor:
        if self.fused is not None:
            parts = self.fused(x.features).chunk(2, dim=-1)
            q, v = parts[0], parts[1]
        else:
            q, v = project(self.query, x.features, x), project(self.value, x.features, x)
        q, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, v))
        return project(self.out, self.attend(q, v, x.valid), x)


class ClusterAttend(Keeper):
    """Attention of ``[batch, heads, tokens, width]``; gives ``[batch, tokens, heads * width]``.

    Attributes:
        centres: ``[heads, clusters, width]``, of length one at first.
    """

    centres: Tensor

    def __init__(self, spec: kinds.ClusterAttention, width: int, *, causal: bool) -> None:
        super().__init__()
        self.window, self.decay, self.dropout, self.causal = spec.window, spec.decay, spec.dropout, causal
        self.scale = math.sqrt(width)  # of vectors of length one
        self.register_buffer("centres", torch.empty(spec.heads, spec.clusters, width, device="meta"))

    def fill(self) -> None:
        drawn = torch.randn(self.centres.shape, generator=torch.Generator().manual_seed(0))
        self.centres.copy_(F.normalize(drawn, dim=-1))

    def forward(self, q: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        q = F.normalize(q, dim=-1)
        cluster = (q.detach() @ self.centres.to(q.dtype).mT).argmax(-1)  # [batch, heads, tokens]
        rate = self.dropout if self.training else 0.0
        if self.decoding is not None and self.causal:
            return self.decode(q, v, cluster).transpose(1, 2).flatten(2)
        real = pairs(valid, q.shape[0])
        if real is not None:  # padding is of no cluster
            cluster = torch.where(real[:, :, 0], cluster, self.centres.shape[1])
        if self.training and not q.is_meta:
            self.follow(q.detach(), cluster)
        order = cluster.argsort(dim=-1, stable=True)
        rows = order[..., None].expand_as(q)
        q, v, cluster = q.gather(2, rows), v.gather(2, rows), cluster.gather(2, order)
        y = torch.empty_like(v).scatter(2, rows, self.bands(q, v, cluster, rate))
        return y.transpose(1, 2).flatten(2)

    def bands(self, q: Tensor, v: Tensor, cluster: Tensor, rate: float) -> Tensor:
        """Tokens in the order of their clusters, ``[batch, heads, tokens]``, read neighbours of the same."""
        size = min(self.window, q.shape[2])
        near = 2 if self.causal else 3
        own = F.pad(cluster, (0, -cluster.shape[2] % size), value=-1)
        beside = F.pad(own, (size, 0 if self.causal else size), value=-2).unfold(2, near * size, size)
        queries = blocks(q, size)
        keys, values = (
            F.pad(blocks(x, size), (0, 0, 0, 0, 0, 0, 1, near - 2)).unfold(1, near, 1).permute(0, 1, 2, 5, 3, 4)
            for x in (q, v)
        )
        index = torch.arange(near * size, device=q.device)
        distance = index[:size, None] + size - index
        reach = (distance >= 0 if self.causal else distance > -size) & (distance < size)
        seen = (own.unflatten(2, (-1, size))[..., None] == beside[..., None, :]) & reach
        bias = torch.where(seen, 0.0, float("-inf")).masked_fill(distance == 0, ALONE).to(q.dtype)
        y = attention(
            queries.flatten(0, 1), keys.flatten(3, 4).flatten(0, 1), values.flatten(3, 4).flatten(0, 1),
            bias.transpose(1, 2).flatten(0, 1), scale=self.scale, rate=rate,
        )  # fmt: skip
        return y.unflatten(0, (q.shape[0], -1)).transpose(1, 2).flatten(2, 3)[:, :, : q.shape[2]]

    def decode(self, q: Tensor, v: Tensor, cluster: Tensor) -> Tensor:
        """What the next tokens read of all that were kept: of each cluster the last ones."""
        decoding, count = self.decoding, q.shape[2]
        assert decoding is not None
        kept, start = decoding.kept(self), decoding.position
        if (real := decoding.real(count)) is not None:
            cluster = torch.where(real[:, None], cluster, -1)
        keys, values = decoding.append(kept, "keys", q, 2), decoding.append(kept, "values", v, 2)
        known = decoding.append(kept, "clusters", cluster, 2)
        here = torch.arange(start, start + count, device=q.device)[:, None]
        there = torch.arange(known.shape[2], device=q.device)
        same = (cluster[..., None] == known[:, :, None]) & (there <= here)
        after = same.flip(-1).cumsum(-1).flip(-1)  # how many of the cluster came since, this one among them
        bias = torch.where(same & (after <= self.window), 0.0, float("-inf")).masked_fill(there == here, ALONE)
        return attention(q, keys, values, bias.to(q.dtype), scale=self.scale)

    @torch.no_grad()
    def follow(self, q: Tensor, cluster: Tensor) -> None:
        """Moves centres towards the mean of the tokens that they were given."""
        heads, clusters, width = self.centres.shape
        total = q.new_zeros(heads, clusters + 1, width + 1).float()
        told = F.pad(q.float(), (0, 1), value=1.0).transpose(0, 1).flatten(1, 2)
        total.scatter_add_(1, cluster.transpose(0, 1).flatten(1)[..., None].expand_as(told), told)
        total = self.over_all(total[:, :clusters])
        mean = total[..., :-1] / total[..., -1:].clamp(min=1)
        given = total[..., -1:] > 0
        self.centres.copy_(torch.where(given, torch.lerp(mean, self.centres.float(), self.decay), self.centres))
