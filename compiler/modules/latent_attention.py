"""Latent attention (schema in archspec.kinds.latent_attention)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kinds import latent_attention as kinds
from compiler.build import Make, main, project
from compiler.modules.activations import ACTIVATIONS
from compiler.modules.kernel import attention
from compiler.modules.temperature import Temperature
from compiler.registry import Keeper, builds
from compiler.tokens import Tokens


@builds(kinds.LatentAttention)
class LatentAttention(nn.Module):
    def __init__(self, spec: kinds.LatentAttention, make: Make) -> None:
        super().__init__()
        self.spec_ = spec
        if spec.query_rank:
            self.query_down, self.query_up = make.linear("query_down"), make.linear("query_up")
            self.query_norm = make.body("query_norm")
        else:
            self.query = make.linear("query")
        self.kv_down, self.kv_up, self.out = make.linear("kv_down"), make.linear("kv_up"), make.linear("out")
        self.kv_norm = make.body("kv_norm")
        self.position = make.body("position") if make.has("position") else None
        self.temperature = None if spec.temperature is None else Temperature(spec.temperature, make.stream)
        self.gate = None if spec.gate is None else make.linear("gate")
        self.plain = make.plain("kv_up") and not make.node.matrices["kv_up"][0].bias
        self.attend = LatentAttend(spec, causal=make.stream.causal)

    def forward(self, x: Tokens, outer: Mapping[str, Tokens]) -> Tensor:
        spec = self.spec_
        if spec.query_rank:
            latent = x.give(project(self.query_down, x.features, x), x.stream.wide(spec.query_rank))
            q = project(self.query_up, main(self.query_norm, latent, outer=outer).features, x)
        else:
            q = project(self.query, x.features, x)
        q = q.unflatten(-1, (spec.heads, -1))
        down = project(self.kv_down, x.features, x).split((spec.kv_rank, spec.rope_width), dim=-1)
        latent_kv, turned = down[0], down[1]
        normed = main(self.kv_norm, x.give(latent_kv, x.stream.wide(spec.kv_rank)), outer=outer).features
        if spec.kv_factor is not None:
            normed = normed * spec.kv_factor
        kv = project(self.kv_up, normed, x).unflatten(-1, (spec.heads, -1))
        q_parts = q.split((spec.nope_width, spec.rope_width), dim=-1)
        kv_parts = kv.split((spec.nope_width, spec.value_width), dim=-1)
        q_plain, q_turned, k_plain, v = q_parts[0], q_parts[1], kv_parts[0], kv_parts[1]
        k_turned = turned[:, :, None]
        if self.position is not None:
            both = self.position(q_turned, k_turned, x.coordinates, x.coordinates)
            q_turned, k_turned = both[0], both[1]
        turned_key = k_turned[:, :, 0]
        q = torch.cat((q_plain, q_turned), dim=-1)
        if self.temperature is not None:
            q = self.temperature(q, x.coordinates)
        k = torch.cat((k_plain, k_turned.expand(-1, -1, spec.heads, -1)), dim=-1)
        up = getattr(self.kv_up, "weight", None) if self.plain else None
        y = self.attend(q, k, v, normed, turned_key, up, x.coordinates, x.valid)
        if self.gate is not None and spec.gate is not None:
            gate = ACTIVATIONS[spec.gate](project(self.gate, x.features, x))
            if spec.gate_per == "head":
                y = (y.unflatten(-1, (spec.heads, spec.value_width)) * gate.unsqueeze(-1)).flatten(-2)
            else:
                y = y * gate
        return project(self.out, y, x)


class LatentAttend(Keeper):
    """Attention over ``[batch, tokens, heads, width]`` whose values may have another width.

    Decoding keeps ``latent`` ``[batch, tokens, kv_rank]`` and the rotated key ``[batch, tokens, rope_width]`` alone:
    queries are taken through the matrix ``up`` that makes keys and values of a latent, and so is what they read.
    """

    def __init__(self, spec: kinds.LatentAttention, *, causal: bool) -> None:
        super().__init__()
        self.scale = spec.scale or 1 / math.sqrt(spec.nope_width + spec.rope_width)
        self.causal, self.dropout = causal, spec.dropout
        self.nope = spec.nope_width

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, latent: Tensor, turned: Tensor, up: Tensor | None,
        place: Tensor | None, valid: Tensor | None,
    ) -> Tensor:  # fmt: skip
        if self.decoding is not None and self.causal:
            return self.decode(q, k, v, latent, turned, up)
        mask = None
        if place is not None or valid is not None:
            at = torch.arange(q.shape[1], device=q.device)[None] if place is None else place
            mask = at[:, None, :, None] >= at[:, None, None, :] if self.causal else None
            if valid is not None:
                mask = valid[:, None, None] if mask is None else mask & valid[:, None, None]
        y = attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), mask, scale=self.scale,
            rate=self.dropout if self.training else 0.0, causal=self.causal and mask is None,
        )  # fmt: skip
        return y.transpose(1, 2).flatten(2)

    def decode(
        self, q: Tensor, k: Tensor, v: Tensor, latent: Tensor, turned: Tensor, up: Tensor | None
    ) -> Tensor:  # fmt: skip
        """The attention of the next tokens; earlier ones were kept as latents, or whole where ``up`` is no matrix."""
        decoding = self.decoding
        assert decoding is not None
        kept, start, count = decoding.kept(self), decoding.position, q.shape[1]
        if up is None:
            k, v = decoding.append(kept, "keys", k, 1), decoding.append(kept, "values", v, 1)
        else:
            seen = decoding.append(kept, "latents", torch.cat((latent, turned), dim=-1), 1)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        mask, whole = None, count > 1 and start == 0 and decoding.start is None
        if not whole and (count > 1 or decoding.start is not None):
            here = torch.arange(start, start + count, device=q.device)[:, None]
            there = torch.arange(start + count, device=q.device)
            mask = (there <= here)[None]
            if decoding.start is not None:
                mask = mask & ((there >= decoding.start[:, None, None]) | (there == here))
            mask = mask[:, None]
        if up is None or start == 0:
            y = attention(q, k, v, mask, causal=whole, scale=self.scale)
            return y.transpose(1, 2).flatten(2)
        matrices = up.unflatten(0, (q.shape[1], -1))  # [heads, nope + value, kv_rank]
        asked = torch.cat((q[..., : self.nope] @ matrices[:, : self.nope], q[..., self.nope :]), dim=-1)
        keys = seen[:, None]
        values = keys[..., : latent.shape[-1]]
        if mask is None:  # heads share the latents, so they are queries of one head
            read = F.scaled_dot_product_attention(asked.transpose(1, 2), keys, values, scale=self.scale).transpose(1, 2)
        else:
            read = F.scaled_dot_product_attention(
                asked, keys, values, attn_mask=mask, scale=self.scale, enable_gqa=True
            )
        return (read @ matrices[:, self.nope :].mT).transpose(1, 2).flatten(2)
