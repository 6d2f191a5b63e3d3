"""Mixtures of attention (schema in archspec.kinds.mixture_of_attention)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from archspec.kind import Matrix
from archspec.kinds import attention
from archspec.kinds import mixture_of_attention as kinds
from archspec.kinds.router import Scored
from compiler.build import LOSSES, Make, project, weight
from compiler.modules.attend import Attend
from compiler.modules.grouped import GroupedLinear, Sorting, summed, unsorted
from compiler.registry import builds
from compiler.tokens import Tokens


@builds(kinds.MixtureOfAttention)
class MixtureOfAttention(nn.Module):
    def __init__(self, spec: kinds.MixtureOfAttention, make: Make) -> None:
        super().__init__()
        x = make.stream
        router = make.node.bodies["router"].nodes[0].kind
        self.k = router.k if isinstance(router, Scored) else 1
        self.heads, (self.kv_heads, self.head_width) = spec.heads, spec.shape(x)
        self.router = make.body("router")
        self.kv = make.fused("key", "value") if make.plain("key", "value") else None
        if self.kv is None:
            self.key, self.value = make.linear("key"), make.linear("value")
        self.experts = Experts(spec, x.width, self.head_width, self.k)
        self.position = make.body("position") if make.has("position") else None
        heads = self.k * spec.heads
        asked = attention.Attention(
            heads=heads, kv_heads=self.kv_heads, head_width=self.head_width, window=spec.window, scale=spec.scale,
            dropout=spec.dropout,
        )  # fmt: skip
        self.attend = Attend(asked, heads, self.head_width, x)
        self.bias = weight(x.width) if spec.bias else None
        self.initial = {"bias": 0.0}

    def forward(self, x: Tokens, outer: Mapping[str, Tokens]) -> Tensor:
        weights, chosen, loss = self.router(x)
        losses = LOSSES.get()
        if loss is not None and losses is not None:
            losses.append(loss)
        shape = x.features.shape[:2]
        parts = self.experts.sorting(x.features.flatten(0, 1), chosen)
        rows, order, ends = parts[0], parts[1], parts[2]
        q = unsorted(self.experts.query(rows, ends), order).unflatten(0, (-1, self.k)).unflatten(0, shape)
        # the heads of all experts that read one key/value head stand together
        q = q.unflatten(-1, (self.kv_heads, -1, self.head_width)).transpose(2, 3).flatten(2, 4)
        if self.kv is not None:
            k, v = self.kv(x.features).chunk(2, dim=-1)
        else:
            k, v = project(self.key, x.features, x), project(self.value, x.features, x)
        k = k.unflatten(-1, (self.kv_heads, self.head_width))
        v = v.unflatten(-1, (self.kv_heads, self.head_width))
        if self.position is not None:
            turned = self.position(q, k, x.coordinates, x.coordinates)
            q, k = turned[0], turned[1]
        y = self.attend(q, k, v, None, x.coordinates, x.coordinates, x.valid, x.segment, x.segment)
        y = y.unflatten(-1, (self.kv_heads, self.k, -1)).transpose(2, 3).flatten(3).flatten(0, 2)
        out: Tensor = unsorted(self.experts.out(y.index_select(0, order), ends), order)
        out = summed(out, weights).unflatten(0, shape)
        return out if self.bias is None else out + self.bias


class Experts(nn.Module):
    """The query and output matrices of all experts, and the order in which tokens meet them."""

    def __init__(self, spec: kinds.MixtureOfAttention, width: int, head_width: int, k: int) -> None:
        super().__init__()
        self.active_share = k / spec.experts
        self.sorting = Sorting(spec.experts)
        inner = spec.heads * head_width
        self.query = GroupedLinear(spec.experts, Matrix(width, inner), roles=("query",))
        self.out = GroupedLinear(spec.experts, Matrix(inner, width, False, "out"), roles=("out",))
