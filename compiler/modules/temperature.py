"""Queries that are sharpened by their place (schema in archspec.kinds.attention)."""

from __future__ import annotations

import torch
from torch import Tensor

from archspec.kinds import attention as kinds
from archspec.streams import Stream
from compiler.registry import Keeper


class Temperature(Keeper):
    """Multiplies queries ``[batch, tokens, heads, width]`` by a factor that grows with their place."""

    def __init__(self, spec: kinds.Temperature, stream: Stream) -> None:
        super().__init__()
        self.spec_, self.causal = spec, stream.causal

    def forward(self, q: Tensor, place: Tensor | None) -> Tensor:
        spec = self.spec_
        if self.decoding is not None and self.causal:
            place = self.decoding.places(q.shape[1], q.device)
        elif place is None:
            place = torch.arange(q.shape[1], device=q.device)[None]
        steps = torch.floor((place.float() + spec.offset) / spec.length)
        return q * (1 + spec.factor * steps.log1p())[..., None, None].to(q.dtype)
