"""Gated linear attention (schema in archspec.kinds.gated_linear_attention)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kinds import gated_linear_attention as kinds
from compiler.build import Make, main, project
from compiler.modules.activations import ACTIVATIONS
from compiler.modules.recurrence import precise, real_tokens
from compiler.registry import Keeper, builds
from compiler.tokens import Tokens


@builds(kinds.GatedLinearAttention)
class GatedLinearAttention(nn.Module):
    """Query, key, value and gate as one product; the decays; the memory; norm and gate; the way out."""

    apart = "decay"

    def __init__(self, spec: kinds.GatedLinearAttention, make: Make) -> None:
        super().__init__()
        self.heads, _, self.value_width = spec.shape(make.stream)
        self.inner = [role for role in make.node.matrices if role not in (self.apart, "out")]
        self.widths = [make.node.matrices[role][0].outputs for role in self.inner]
        self.inputs = make.fused(*self.inner) if make.plain(*self.inner) else None
        if self.inputs is None:
            for role in self.inner:
                self.add_module(role, make.linear(role))
        self.add_module(self.apart, make.linear(self.apart))
        self.out = make.linear("out")
        self.memory: Keeper = Fading(spec.slowness)
        self.norm = make.body("norm") if make.has("norm") else None
        self.activation = ACTIVATIONS[spec.gate] if spec.gate != "none" else None

    def forward(self, x: Tokens, outer: Mapping[str, Tokens] | None = None) -> Tensor:
        if self.inputs is not None:
            split = self.inputs(x.features).split(self.widths, dim=-1)
            parts = [split[number] for number in range(len(self.inner))]
        else:
            parts = [project(getattr(self, role), x.features, x) for role in self.inner]
        parts += [project(getattr(self, self.apart), x.features, x)]
        q, k, v, gates = (part.unflatten(-1, (self.heads, -1)) for part in (*parts[:3], parts[-1]))
        y = self.read(q, k, v, gates, x.valid)
        if self.norm is not None:
            y = main(self.norm, x.give(y, x.stream.wide(self.value_width)), outer=outer or {}).features
        y = y.flatten(2)
        return project(self.out, y if self.activation is None else y * self.activation(parts[3]), x)

    def read(self, q: Tensor, k: Tensor, v: Tensor, gates: Tensor, valid: Tensor | None) -> Tensor:
        """What the queries read, as ``v``; all are ``[batch, tokens, heads, …]``."""
        y: Tensor = self.memory(q, k, v, gates, valid)
        return y


class Fading(Keeper):
    """What is read, as ``v``, by queries of a memory of keys and values ``[batch, tokens, heads, width]``; ``decay``,
    as ``k``, is what goes into the sigmoids."""

    def __init__(self, slowness: float) -> None:
        super().__init__()
        self.slowness = slowness

    def forward(self, q: Tensor, k: Tensor, v: Tensor, decay: Tensor, valid: Tensor | None) -> Tensor:
        k, g = precise(k), F.logsigmoid(precise(decay)) / self.slowness
        real = real_tokens(self, v, valid)
        if real is not None:  # padding is not written and takes no time
            k, g = k * real[..., None, None], g * real[..., None, None]
        given = (precise(q) * k.shape[-1] ** -0.5, k, precise(v), g)
        if self.decoding is None:
            return chunked(*given)[0].to(v.dtype)
        kept = self.decoding.kept(self)
        y, kept["state"] = (one_by_one if v.shape[1] == 1 else chunked)(*given, kept.get("state"))
        return y.to(v.dtype)


CHUNK = 16
"""Tokens of a chunk, of whose pairs each feature has its own decay. A longer one is slower, a shorter one no faster."""


def one_by_one(q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """``S[t] = exp(g[t]) S[t-1] + k[t] v[t]'``, read as ``S[t]' q[t]``.

    Args:
        q, k: ``[batch, tokens, heads, key width]``.
        v: ``[batch, tokens, heads, value width]``.
        g: logarithms of the decays, as ``k``.
        state: before the first token, ``[batch, heads, key width, value width]``; zero by default.

    Returns:
        What is read, as ``v``, and the state after the last token.
    """
    state = v.new_zeros(v.shape[0], v.shape[2], k.shape[3], v.shape[3]) if state is None else state
    read = []
    for token in range(v.shape[1]):
        state = state * g[:, token, :, :, None].exp() + k[:, token, :, :, None] * v[:, token, :, None]
        read.append((state * q[:, token, :, :, None]).sum(2))
    return torch.stack(read, dim=1), state


def chunked(q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`one_by_one` in chunks: all pairs of tokens inside one, the state between them.

    Decays are multiplied over the tokens between two, never divided, so that the fastest stay numbers.
    """
    tokens = v.shape[1]
    size = min(CHUNK, tokens)
    short = -tokens % size
    q, k, v, g = (
        (F.pad(x, (0, 0, 0, 0, 0, short)) if short else x).transpose(1, 2).unflatten(2, (-1, size))
        for x in (q, k, v, g)
    )  # [batch, heads, chunks, size, width]
    since = g.cumsum(3)
    later = torch.ones(size, size, dtype=torch.bool, device=v.device).triu(1)
    fade = (since[..., :, None, :] - since[..., None, :, :]).masked_fill(later[..., None], float("-inf")).exp()
    y = ((fade * k[..., None, :, :]) @ q[..., None]).squeeze(-1) @ v
    end = since[..., -1:, :]
    written = (k * (end - since).exp()).transpose(-1, -2) @ v
    state = torch.zeros_like(written[:, :, 0]) if state is None else state
    before = []
    for passed, new in zip(end.transpose(-1, -2).exp().unbind(2), written.unbind(2), strict=True):
        before.append(state)
        state = state * passed + new
    y = y + (q * since.exp()) @ torch.stack(before, dim=2)
    return y.flatten(2, 3)[:, :, :tokens].transpose(1, 2), state
