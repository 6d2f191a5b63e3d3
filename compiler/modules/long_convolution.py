"""Convolutions whose filters are as long as the sequence (schemas in archspec.kinds.long_convolution)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from archspec.kind import Matrix
from archspec.kinds import long_convolution as kinds
from compiler.build import Make, plain_linear, weight
from compiler.modules.position import table
from compiler.modules.recurrence import precise
from compiler.registry import Keeper, Leaf, builds
from compiler.tokens import Tokens


@builds(kinds.LongConvolution)
class LongConvolution(nn.Module):
    def __init__(self, spec: kinds.LongConvolution, make: Make) -> None:
        super().__init__()
        causal = make.stream.causal
        self.convolve = Convolve(make.body("filter"), None if causal else make.body("filter"))
        self.skip = weight(make.stream.width) if spec.skip else None
        self.initial = {"skip": ("normal", 1.0)}

    def forward(self, x: Tokens, outer: object = None) -> Tensor:
        features = x.features if x.valid is None else x.features * x.valid[..., None]  # padding is silence
        y: Tensor = self.convolve(features)
        return y if self.skip is None else y + self.skip * x.features


class Convolve(Keeper):
    """``[batch, tokens, width]`` filtered by ``past``, and by ``future`` in the other direction."""

    def __init__(self, past: nn.Module, future: nn.Module | None) -> None:
        super().__init__()
        self.past, self.future = past, future

    def forward(self, x: Tensor) -> Tensor:
        if self.decoding is None:
            return filtered(x, self.past(x.shape[1]), None if self.future is None else self.future(x.shape[1]))
        real, count = self.decoding.real(x.shape[1]), x.shape[1]
        x = self.decoding.append(self.decoding.kept(self), "told", x if real is None else x * real[..., None], 1)
        taps = self.past(x.shape[1])
        return filtered(x, taps, None)[:, -count:] if count > 1 else (x * taps.flip(0)).sum(1, keepdim=True).to(x.dtype)


def filtered(x: Tensor, past: Tensor, future: Tensor | None) -> Tensor:
    """By products of spectra over twice the length, so that no end reaches the other; filters ``[tokens, width]``."""
    size = 2 * x.shape[1]
    spectrum = torch.fft.rfft(precise(past), n=size, dim=0)
    if future is not None:
        spectrum = spectrum + torch.fft.rfft(precise(future), n=size, dim=0).conj()
    y = torch.fft.irfft(torch.fft.rfft(precise(x), n=size, dim=1) * spectrum, n=size, dim=1)
    return y[:, : x.shape[1]].to(x.dtype)


@builds(kinds.LagTable)
class LagTable(nn.Module):
    def __init__(self, spec: kinds.LagTable, make: Make) -> None:
        super().__init__()
        lags = spec.lags(make.stream)
        self.weight = weight(lags, make.stream.width)
        self.initial = {"weight": ("normal", 1 / math.sqrt(lags) if spec.std is None else spec.std)}

    def forward(self, count: int) -> Tensor:
        return self.weight[:count]


@builds(kinds.ImplicitFilter)
class ImplicitFilter(Leaf):
    """A perceptron over lags.

    Attributes:
        places: what it reads of each lag.
        decay: what a feature is multiplied by at each lag.
    """

    places: Tensor
    decay: Tensor

    def __init__(self, spec: kinds.ImplicitFilter, make: Make) -> None:
        super().__init__()
        self.spec_, lags, width = spec, spec.lags(make.stream), make.stream.width
        sizes = [1 + 2 * spec.bands, *[spec.width] * (1 + spec.layers)]
        self.inner = nn.ModuleList(plain_linear(Matrix(*pair, True)) for pair in pairwise(sizes))
        self.last = plain_linear(Matrix(spec.width, width))
        for layer in (*self.inner, self.last):
            layer.initial = {"weight": ("fan_in",)}  # type: ignore[assignment]
        self.frequency = weight(spec.width)
        self.initial = {"frequency": float(spec.frequency)}
        table(self, "places", lags, 1 + 2 * spec.bands)
        table(self, "decay", lags, width)

    def fill(self) -> None:
        spec, (lags, width) = self.spec_, self.decay.shape
        place = torch.arange(lags)[:, None]
        turns = torch.linspace(1e-4, max(spec.bands - 1, 1e-4), spec.bands) * place * (2 * math.pi / lags)
        share = place / max(1, lags - 1)
        self.places.copy_(torch.cat((share, turns.cos(), -turns.sin()), dim=-1))
        rates = math.log(1 / spec.target) * torch.linspace(1 / spec.slow, 1 / spec.fast, width)
        self.decay.copy_(torch.exp(-share * rates))

    def forward(self, count: int) -> Tensor:
        x = self.places[:count]
        for layer in self.inner:
            x = torch.sin(self.frequency * layer(x))
        out: Tensor = self.last(x) * self.decay[:count]
        return out
