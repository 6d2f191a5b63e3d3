"""Attention that starts as the identity (schema in archspec.kinds.shaped_attention)."""

from __future__ import annotations

from torch import Tensor, nn

from archspec.kinds import attention
from archspec.kinds import shaped_attention as kinds
from compiler.build import Make, project, weight
from compiler.modules.attend import Attend
from compiler.modules.recurrence import precise, real_tokens
from compiler.registry import Keeper, builds
from compiler.tokens import Tokens


@builds(kinds.ShapedAttention)
class ShapedAttention(nn.Module):
    def __init__(self, spec: kinds.ShapedAttention, make: Make) -> None:
        super().__init__()
        x, self.heads = make.stream, spec.heads
        self.query, self.key, self.value, self.out = (make.linear(role) for role in ("query", "key", "value", "out"))
        plain = attention.Attention.model_validate({"heads": spec.heads})
        self.attend = Attend(plain, spec.heads, spec.inner(x) // spec.heads, x)
        self.mean = MeanSoFar(causal=x.causal)
        self.skip, self.mix, self.centre = weight(spec.heads, 1), weight(spec.heads, 1), weight(spec.heads, 1)
        self.initial = {"skip": 1.0, "mix": 1.0, "centre": 1.0}

    def forward(self, x: Tokens) -> Tensor:
        matrices = (self.query, self.key, self.value)
        q, k, v = [project(matrix, x.features, x).unflatten(-1, (self.heads, -1)) for matrix in matrices]
        read = self.attend(q, k, v, None, x.coordinates, x.coordinates, x.valid).unflatten(-1, (self.heads, -1))
        y = self.skip * v + self.mix * read - self.centre * self.mean(v, x.valid)
        return project(self.out, y.flatten(2), x)


class MeanSoFar(Keeper):
    """The mean of ``[batch, tokens, heads, width]`` over tokens, along a causal axis over those up to each."""

    def __init__(self, *, causal: bool) -> None:
        super().__init__()
        self.causal = causal

    def forward(self, v: Tensor, valid: Tensor | None) -> Tensor:
        real = real_tokens(self, v, valid)
        share = v.new_ones(1, v.shape[1]) if real is None else real.to(v.dtype)
        count = precise(share)[..., None, None]
        total = precise(v) * count
        if not self.causal:
            mean = total.sum(1, keepdim=True) / count.sum(1, keepdim=True).clamp(min=1)
            return mean.to(v.dtype)
        total, count = total.cumsum(1), count.cumsum(1)
        if self.decoding is not None:
            kept = self.decoding.kept(self)
            if kept:
                total, count = total + kept["total"], count + kept["count"]
            kept["total"], kept["count"] = total[:, -1:].clone(), count[:, -1:].clone()
        return (total / count.clamp(min=1)).to(v.dtype)
