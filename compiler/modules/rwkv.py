"""RWKV (schemas in archspec.kinds.rwkv)."""

from __future__ import annotations

from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kinds import rwkv as kinds
from compiler.build import Make, project, weight
from compiler.modules.convolution import Past
from compiler.modules.recurrence import precise, real_tokens, scan, spread
from compiler.registry import Keeper, builds
from compiler.tokens import Tokens


class TokenShift(nn.Module):
    """Mixtures of each token and the one before it, ``mix x[t] + (1 - mix) x[t-1]``, one for each name."""

    def __init__(self, width: int, *names: str) -> None:
        super().__init__()
        self.past, self.names = Past(1), names
        for name in names:
            self.register_parameter(name, weight(width))
        self.initial = {name: spread(width, 0.0, 1.0) for name in names}

    def forward(self, x: Tokens) -> list[Tensor]:
        features = x.features
        if x.valid is not None:  # padding is silence to its neighbours
            features = features * x.valid[..., None]
        before = self.past(features.transpose(1, 2))[:, :, :-1].transpose(1, 2)
        return [torch.lerp(before, features, getattr(self, name)) for name in self.names]


@builds(kinds.RwkvTimeMixing)
class RwkvTimeMixing(nn.Module):
    def __init__(self, spec: kinds.RwkvTimeMixing, make: Make) -> None:
        super().__init__()
        roles = ("receptance", "key", "value")
        self.shift = TokenShift(make.stream.width, *roles)
        self.receptance, self.key, self.value = (make.linear(role) for role in roles)
        inner = spec.inner(make.stream)
        self.decay, self.bonus = weight(inner), weight(inner)
        self.initial = {"decay": spread(inner, -5.0, 3.0), "bonus": spread(inner, -0.5, 0.5, other=True)}
        self.average = FadingAverage()
        self.out = make.linear("out")

    def forward(self, x: Tokens) -> Tensor:
        mixed = self.shift(x)
        receptance = project(self.receptance, mixed[0], x)
        key, value = project(self.key, mixed[1], x), project(self.value, mixed[2], x)
        average = self.average(key, value, self.decay, self.bonus, x.valid)
        return project(self.out, torch.sigmoid(receptance) * average, x)


@builds(kinds.RwkvChannelMixing)
class RwkvChannelMixing(nn.Module):
    def __init__(self, spec: kinds.RwkvChannelMixing, make: Make) -> None:
        super().__init__()
        self.shift = TokenShift(make.stream.width, "receptance", "key")
        self.receptance, self.key, self.value = (make.linear(role) for role in ("receptance", "key", "value"))

    def forward(self, x: Tokens) -> Tensor:
        mixed = self.shift(x)
        receptance = torch.sigmoid(project(self.receptance, mixed[0], x))
        return receptance * project(self.value, F.relu(project(self.key, mixed[1], x)).square(), x)


class FadingAverage(Keeper):
    """``wkv [batch, tokens, width]`` of keys and values of that shape, ``decay`` and ``bonus [width]``.

    Sums of weights and of weighted values are kept divided by about the largest weight in them, whose logarithm stands
    beside them. It may be any number, so nothing is differentiated through it.
    """

    def forward(self, key: Tensor, value: Tensor, decay: Tensor, bonus: Tensor, valid: Tensor | None) -> Tensor:
        k, v = precise(key), precise(value)
        rate = precise(decay).exp()
        real = real_tokens(self, k, valid)
        if real is not None:  # padding has no weight and takes no time
            k, rate = torch.where(real[..., None], k, NEVER), rate * real[..., None]
        kept = self.decoding.kept(self) if self.decoding is not None else {}
        if not kept:
            kept["largest"] = torch.full_like(k[:, 0], NOTHING)
            kept["sums"] = k.new_zeros(k.shape[0], 2, k.shape[2])
        with torch.no_grad():
            time = (
                rate.cumsum(1) if real is not None else torch.arange(1, k.shape[1] + 1, device=k.device)[:, None] * rate
            )
            since = torch.cat(
                (torch.maximum(k[:, :1] + time[..., :1, :], kept["largest"][:, None]), (k + time)[:, 1:]), 1
            )
            largest = running_maximum(since) - time
            before = torch.cat((kept["largest"][:, None], largest[:, :-1]), dim=1)
            top = torch.maximum(before, k + precise(bonus))
        written = (k - largest).exp()
        sums = scan((before - rate - largest).exp()[:, :, None], torch.stack((written * v, written), 2), kept["sums"])
        earlier = torch.cat((kept["sums"][:, None], sums[:, :-1]), dim=1)
        old, own = (before - top).exp(), (k + precise(bonus) - top).exp()
        if self.decoding is not None:
            kept["largest"], kept["sums"] = largest[:, -1].clone(), sums[:, -1].clone()
        y = (old * earlier[:, :, 0] + own * v) / (old * earlier[:, :, 1] + own)
        return y.to(value.dtype)


NOTHING, NEVER = -1e30, -1e38
"""Logarithms of the sum of no weights, and of a weight that is none."""


def one_by_one(k: Tensor, v: Tensor, decay: Tensor, bonus: Tensor) -> Tensor:
    """``wkv`` as it is defined, token by token, for keys whose exponentials are numbers."""
    numerator, denominator, read = torch.zeros_like(k[:, 0]), torch.zeros_like(k[:, 0]), []
    for token in range(k.shape[1]):
        own = (k[:, token] + bonus).exp()
        read.append((numerator + own * v[:, token]) / (denominator + own))
        left, weight = (-decay.exp()).exp(), k[:, token].exp()
        numerator, denominator = left * numerator + weight * v[:, token], left * denominator + weight
    return torch.stack(read, dim=1)


def running_maximum(x: Tensor) -> Tensor:
    """The largest number up to each token of ``[batch, tokens, width]``: in all chunks at once, then between them."""
    count = x.shape[1]
    size = max(1, isqrt(count))
    x = F.pad(x, (0, 0, 0, -count % size)).unflatten(1, (-1, size))
    places, chunks = x.unbind(2), x.unbind(1)
    for place in range(1, size):
        torch.maximum(places[place], places[place - 1], out=places[place])
    for number in range(1, len(chunks)):
        torch.maximum(chunks[number], chunks[number - 1][:, -1:], out=chunks[number])
    return x.flatten(1, 2)[:, :count]
