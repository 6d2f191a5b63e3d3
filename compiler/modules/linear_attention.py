"""Linear attention (schema in archspec.kinds.linear_attention)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kinds import linear_attention as kinds
from compiler.build import Make, main, project
from compiler.modules.recurrence import precise, real_tokens
from compiler.registry import Keeper, builds
from compiler.tokens import Tokens

FEATURE_MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "elu": lambda x: F.elu(x) + 1,
    "relu": F.relu,
    "softmax": lambda x: x.softmax(-1),
    "identity": lambda x: x,
}


@builds(kinds.LinearAttention)
class LinearAttention(nn.Module):
    def __init__(self, spec: kinds.LinearAttention, make: Make) -> None:
        super().__init__()
        self.heads, self.head_width, self.value_width = spec.shape(make.stream)
        roles = ("query", "key", "value")
        self.memory = make.body("memory") if make.has("memory") else None
        self.memory_name = make.node.streams.get("memory")
        alone = self.memory is None and self.memory_name is None
        self.qkv = make.fused(*roles) if alone and make.plain(*roles) else None
        if self.qkv is None:
            self.query, self.key, self.value = (make.linear(role) for role in roles)
        self.key_position = make.body("key_position") if make.has("key_position") else None
        self.local = make.body("local") if make.has("local") else None
        self.features = make.body("features") if make.has("features") else None
        if self.features is not None:
            self.features.fits(self.heads)  # type: ignore[operator]
        self.attend = Attend(spec, spec.feature_map if self.features is None else "identity",
                             causal=alone and make.stream.causal)  # fmt: skip
        self.out = make.linear("out")

    def forward(self, x: Tokens, outer: Mapping[str, Tokens] | None = None) -> Tensor:
        width, memory, outer = self.heads * self.head_width, x, outer or {}
        if self.memory is not None:
            memory = main(self.memory, x, outer=outer)
        elif self.memory_name is not None:
            memory = outer[self.memory_name]
        if self.qkv is not None:
            parts = self.qkv(x.features).split((width, width, self.heads * self.value_width), dim=-1)
            q, k, v = parts[0], parts[1], parts[2]
        else:
            q, k = project(self.query, x.features, x), project(self.key, memory.features, memory)
            v = project(self.value, memory.features, memory)
        if self.key_position is not None:
            k = main(self.key_position, memory.give(k, memory.stream.wide(width)), outer=outer).features
        beside = (
            None
            if self.local is None
            else main(self.local, x.give(v, x.stream.wide(self.heads * self.value_width)), outer=outer)
        )
        q, k = q.unflatten(-1, (self.heads, -1)), k.unflatten(-1, (self.heads, -1))
        if self.features is not None:
            mapped = self.features(q, k)
            q, k = mapped[0], mapped[1]
        y = self.attend(q, k, v.unflatten(-1, (self.heads, -1)), memory.valid).flatten(2)
        return project(self.out, y if beside is None else y + beside.features, x)


class Attend(Keeper):
    """Linear attention for queries and keys ``[batch, tokens, heads, width]``, values ``[batch, tokens, heads, value
    width]``; gives these of what is read."""

    def __init__(self, spec: kinds.LinearAttention, feature_map: str, *, causal: bool) -> None:
        super().__init__()
        self.map, self.normalize, self.eps, self.causal = feature_map, spec.normalize, spec.eps, causal

    def forward(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        features, dtype = FEATURE_MAPS[self.map], v.dtype
        q, k, v = features(precise(q)), features(precise(k)), precise(v)
        if self.normalize:  # the sum of the weights is what is read of a value of one
            v = F.pad(v, (0, 1), value=1.0)
        real = real_tokens(self, v, valid) if self.causal else valid
        if real is not None:
            k = k * real[..., None, None]
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if self.decoding is not None and self.causal:
            kept = self.decoding.kept(self)
            y, kept["state"] = chunked(q, k, v, kept.get("state"))
        elif self.causal:
            y, _ = chunked(q, k, v)
        else:
            y = q @ (k.transpose(-1, -2) @ v)
        if self.normalize:
            y = y[..., :-1] / (y[..., -1:] + self.eps)
        return y.transpose(1, 2).to(dtype)


CHUNK = 64
"""Tokens of a chunk."""


def one_by_one(q: Tensor, k: Tensor, v: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """``S[t] = S[t-1] + k[t] v[t]'``, read as ``S[t]' q[t]``.

    Args:
        q, k: ``[batch, heads, tokens, width]``.
        v: ``[batch, heads, tokens, value width]``.
        state: before the first token, ``[batch, heads, width, value width]``; zero by default.

    Returns:
        What is read, as ``v``, and the state after the last token.
    """
    state = v.new_zeros(*v.shape[:2], k.shape[3], v.shape[3]) if state is None else state
    read = []
    for token in range(v.shape[2]):
        state = state + k[:, :, token, :, None] * v[:, :, token, None]
        read.append((state * q[:, :, token, :, None]).sum(2))
    return torch.stack(read, dim=2), state


def chunked(q: Tensor, k: Tensor, v: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`one_by_one` in chunks: all pairs of tokens inside one, the state between them."""
    tokens = v.shape[2]
    size = min(CHUNK, tokens)
    short = -tokens % size
    q, k, v = ((F.pad(x, (0, 0, 0, short)) if short else x).unflatten(2, (-1, size)) for x in (q, k, v))
    y = (q @ k.transpose(-1, -2)).tril() @ v
    if state is None and tokens <= size:
        return y.flatten(2, 3), (k.transpose(-1, -2) @ v)[:, :, 0]
    states = (k.transpose(-1, -2) @ v).cumsum(2)
    if state is not None:
        states = states + state[:, :, None]
        before = torch.cat((state[:, :, None], states[:, :, :-1]), dim=2)
        y = y + q @ before
    else:
        y = y + q @ F.pad(states[:, :, :-1], (0, 0, 0, 0, 1, 0))
    return y.flatten(2, 3)[:, :, :tokens], states[:, :, -1]
