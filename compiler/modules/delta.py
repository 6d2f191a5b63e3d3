"""Delta rules (schemas in archspec.kinds.delta)."""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, expm1, log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kinds import delta as kinds
from compiler.build import Make, main, project, weight
from compiler.modules.activations import ACTIVATIONS
from compiler.modules.recurrence import causal_convolution, precise, real_tokens, spread
from compiler.registry import Keeper, builds
from compiler.tokens import Tokens


@builds(kinds.GatedDeltaRule)
class GatedDeltaRule(nn.Module):
    """All that is linear in the input as one product; the convolution; the rule; norm and gate; the way out."""

    def __init__(self, spec: kinds.GatedDeltaRule, make: Make) -> None:
        super().__init__()
        stream = make.stream
        self.heads, self.key_heads, self.key_width, self.value_width = spec.shape(stream)
        self.inner = [role for role in make.node.matrices if role != "out"]
        self.widths = [make.node.matrices[role][0].outputs for role in self.inner]
        self.inputs = make.fused(*self.inner) if make.plain(*self.inner) else None
        if self.inputs is None:
            for role in self.inner:
                self.add_module(role, make.linear(role))
        self.convolution = causal_convolution(stream.wide(sum(self.widths[:3])), spec.convolution, bias=False)
        self.activation = ACTIVATIONS[spec.activation]
        self.rate, self.step = weight(self.heads), weight(self.heads)
        steps = [exp(step) for step in spread(self.heads, log(0.001), log(0.1), other=True)]
        self.initial = {
            "rate": [log(rate) for rate in spread(self.heads, 0.01, 16)],
            "step": [log(expm1(step)) for step in steps],  # softplus of it is the step
        }
        self.rule = Rule(spec.strength)
        self.norm = make.body("norm") if make.has("norm") else None
        self.gate_activation = ACTIVATIONS[spec.gate] if spec.gate != "none" else None
        self.out = make.linear("out")

    def forward(self, x: Tokens, outer: Mapping[str, Tokens] | None = None) -> Tensor:
        if self.inputs is not None:
            parts = self.inputs(x.features).split([sum(self.widths[:3]), *self.widths[3:]], dim=-1)
            mixed, rest = parts[0], [parts[number] for number in range(1, len(self.inner) - 2)]
        else:
            found = [project(getattr(self, role), x.features, x) for role in self.inner]
            mixed, rest = torch.cat(found[:3], dim=-1), found[3:]
        if x.valid is not None:  # padding is silence to its neighbours
            mixed = mixed * x.valid[..., None]
        if self.convolution is not None:
            mixed = self.convolution(mixed)
        split = self.activation(mixed).split(self.widths[:3], dim=-1)
        q = split[0].unflatten(-1, (self.key_heads, self.key_width))
        k = split[1].unflatten(-1, (self.key_heads, self.key_width))
        v = split[2].unflatten(-1, (self.heads, self.value_width))
        y = self.rule(q, k, v, rest[-2], rest[-1], self.rate, self.step, x.valid)
        if self.norm is not None:
            y = main(self.norm, x.give(y, x.stream.wide(self.value_width)), outer=outer or {}).features
        y = y.flatten(2)
        if self.gate_activation is not None:
            y = y * self.gate_activation(rest[0])
        return project(self.out, y, x)


class Rule(Keeper):
    """The gated delta rule for queries and keys ``[batch, tokens, key heads, key width]`` and values ``[batch, tokens,
    heads, value width]``, of whose shape it gives what is read.

    ``beta`` and ``decay [batch, tokens, heads]`` are what the gates are made of, ``rate`` and ``step [heads]`` their
    parameters.
    """

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, beta: Tensor, decay: Tensor, rate: Tensor, step: Tensor,
        valid: Tensor | None,
    ) -> Tensor:  # fmt: skip
        b = torch.sigmoid(precise(beta)) * self.strength
        g = F.softplus(precise(decay) + precise(step)) * -precise(rate).exp()
        real = real_tokens(self, v, valid)
        if real is not None:  # padding is not written and takes no time
            b, g = b * real[..., None], g * real[..., None]
        given = (precise(q), precise(k), precise(v), g, b)
        if self.decoding is None:
            return chunked(*given)[0].to(v.dtype)
        kept = self.decoding.kept(self)
        run = one_by_one if v.shape[1] < SHORT else chunked
        y, kept["state"] = run(*given, kept.get("state"))
        return y.to(v.dtype)


CHUNK = 32
"""Tokens of a chunk. A longer one has more pairs of tokens, a shorter one more states; of 16 to 128 the fastest."""
SHORT = 6
"""Fewer tokens than this are faster read one by one."""
UNIT = 1e-6
"""Added to the squared length of queries and keys."""


def one_by_one(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The rule as it is written, token by token.

    Args:
        q, k: ``[batch, tokens, key heads, key width]``, of any length.
        v: ``[batch, tokens, heads, value width]``.
        g: logarithms of the decays, ``[batch, tokens, heads]``.
        beta: how much is rewritten, ``[batch, tokens, heads]``.
        state: before the first token, ``[batch, heads, key width, value width]``; zero by default.

    Returns:
        What is read, as ``v``, and the state after the last token.
    """
    groups = v.shape[2] // k.shape[2]
    q, k = (x * torch.rsqrt(x.square().sum(-1, keepdim=True) + UNIT) for x in (q, k))
    q, k = (x.repeat_interleave(groups, dim=2) for x in (q * q.shape[-1] ** -0.5, k))
    if state is None:
        state = v.new_zeros(v.shape[0], v.shape[2], k.shape[3], v.shape[3])
    read = []
    for token in range(v.shape[1]):
        key = k[:, token, :, :, None]
        state = state * g[:, token, :, None, None].exp()
        new = (v[:, token] - (state * key).sum(2)) * beta[:, token, :, None]
        state = state + key * new[:, :, None]
        read.append((state * q[:, token, :, :, None]).sum(2))
    return torch.stack(read, dim=1), state


def chunked(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`one_by_one` in chunks. Inside a chunk what each token writes solves a triangular system (section 3.3).

    With ``D[i, j]`` the decay from token j to i and ``e[i]`` that from the chunk's start, the tokens write ``N = T (V -
    e K S)`` where ``(1 + beta (K K' D below the diagonal)) T = diag(beta)``, read ``e Q S + (Q K' D) N``, and leave
    ``e S + (D[last] K)' N``. Lengths of keys and queries are divided out of these small matrices, not of the vectors.
    """
    batch, tokens, key_heads, key_width = k.shape
    heads, size = v.shape[2], min(CHUNK, tokens)
    groups, short = heads // key_heads, -tokens % size

    def cut(x: Tensor) -> Tensor:
        """``[batch, chunks, size, …]``."""
        x = F.pad(x, (*(0, 0) * (x.ndim - 2), 0, short)) if short else x
        return x.unflatten(1, (-1, size))

    def by_head(x: Tensor) -> Tensor:
        """``[batch, key heads, groups, chunks, size, …]``."""
        return cut(x).movedim(3, 1).unflatten(1, (key_heads, groups))

    qk = (
        torch.stack((cut(q), cut(k)), dim=1).permute(0, 4, 2, 1, 3, 5).contiguous()
    )  # [batch, heads, chunks, 2, size, …]
    v, g, beta = by_head(v), by_head(g), by_head(beta)
    unit = torch.rsqrt(qk.square().sum(-1) + UNIT)
    unit = torch.stack((unit[..., 0, :] * key_width**-0.5, unit[..., 1, :]), dim=-2)
    keys = qk[..., 1, :, :]
    pairs = (qk.flatten(3, 4) @ keys.transpose(-1, -2)).unflatten(3, (2, size))
    pairs = pairs * (unit[..., None] * unit[..., 1:, None, :])
    since = g.cumsum(-1)
    later = torch.ones(size, size, dtype=torch.bool, device=v.device).triu(1)
    decay = (since[..., :, None] - since[..., None, :]).masked_fill(later, float("-inf")).exp()
    pairs = pairs[:, :, None] * decay[..., None, :, :]
    system = pairs[..., 1, :, :] * beta[..., None]  # the diagonal, read as ones, and what is above it do not matter
    solved = torch.linalg.solve_triangular(system, torch.diag_embed(beta), upper=False, unitriangular=True)
    left = (since[..., -1:] - since).exp() * unit[:, :, None, :, 1]
    reads_writes = torch.cat((pairs[..., 0, :, :] @ solved, solved * left[..., None]), dim=-2)
    start = since.exp()
    asked = (qk[:, :, None] * (unit[:, :, None] * start[..., None, :])[..., None]).flatten(4, 5)
    keys = keys[:, :, None].expand(-1, -1, groups, -1, -1, -1).transpose(-1, -2)
    rows = (x.flatten(0, 2).unbind(1) for x in (asked, v, reads_writes, keys, start[..., -1, None, None]))
    s = v.new_zeros(batch * heads, key_width, v.shape[-1]) if state is None else state.flatten(0, 1)
    read = []
    for ask, value, read_write, key, passed in zip(*rows, strict=True):
        old, predicted = torch.bmm(ask, s).split(size, dim=1)
        new, written = torch.bmm(read_write, value - predicted).split(size, dim=1)
        read.append(old + new)
        s = torch.baddbmm(s * passed, key, written)
    y = torch.stack(read, dim=1).flatten(1, 2)[:, :tokens]
    return y.unflatten(0, (batch, heads)).transpose(1, 2), s.unflatten(0, (batch, heads))
