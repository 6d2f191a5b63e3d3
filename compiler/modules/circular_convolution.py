"""Convolutions around a circle of tokens (schemas in archspec.kinds.circular_convolution)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kinds import circular_convolution as kinds
from archspec.streams import Stream
from compiler.build import Make, weight
from compiler.modules.convolution import GridConvolution
from compiler.modules.recurrence import precise
from compiler.registry import Leaf, builds
from compiler.tokens import Tokens


@builds(kinds.CircularConvolution)
class CircularConvolution(nn.Module):
    def __init__(self, spec: kinds.CircularConvolution, make: Make) -> None:
        super().__init__()
        self.convolve = Around(make.body("filter"), make.body("condition") if make.has("condition") else None)
        self.skip = weight(make.stream.width) if spec.skip else None
        self.initial = {"skip": ("normal", 1.0)}

    def forward(self, x: Tokens, *source: Tokens, outer: object = None) -> Tensor:
        y: Tensor = self.convolve(x.features, (source or (x,))[0].features)
        return y if self.skip is None else y + self.skip * x.features


class Around(Leaf):
    """``[batch, tokens, width]`` by one filter for all samples and one for each, made of ``source`` of that shape."""

    def __init__(self, filter: nn.Module, condition: nn.Module | None) -> None:
        super().__init__()
        self.filter, self.condition = filter, condition

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        count = x.shape[1]
        spectrum = torch.fft.rfft(precise(self.filter(count)), dim=0)
        if self.condition is not None:
            spectrum = spectrum + self.condition(source)
        return torch.fft.irfft(torch.fft.rfft(precise(x), dim=1) * spectrum, n=count, dim=1).to(x.dtype)


class Local(nn.Module):
    """A convolution of features in ``groups``, those of all tokens normalised; as wide as it is told."""

    def __init__(self, stream: Stream, size: int, *, width: int = 0, groups: int = 0, circular: bool = False) -> None:
        super().__init__()
        self.convolution = GridConvolution(
            stream, size=size, bias=True, width=width, groups=groups, circular=circular
        )  # fmt: skip
        self.scale, self.shift = weight(width or stream.width), weight(width or stream.width)
        self.initial = {"scale": 1.0, "shift": 0.0}

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(self.convolution(x), self.scale.shape, self.scale, self.shift)


@builds(kinds.SpectralMagnitude)
class SpectralMagnitude(nn.Module):
    def __init__(self, spec: kinds.SpectralMagnitude, make: Make) -> None:
        super().__init__()
        x = make.stream
        self.tokens = Local(x, spec.size, circular=True)
        self.frequencies = Local(x, spec.size, width=2 * x.width, groups=x.width)

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(precise(self.tokens(x)), dim=1)
        return as_complex(self.frequencies(spectrum.abs().to(x.dtype)))


@builds(kinds.SpectralCorrelation)
class SpectralCorrelation(nn.Module):
    def __init__(self, spec: kinds.SpectralCorrelation, make: Make) -> None:
        super().__init__()
        x = make.stream
        self.first, self.second = (Local(x, spec.size, circular=True) for _ in range(2))
        self.frequencies = Local(x.wide(2 * x.width), spec.size, width=2 * x.width, groups=x.width)

    def forward(self, x: Tensor) -> Tensor:
        first, second = (torch.fft.rfft(precise(local(x)), dim=1) for local in (self.first, self.second))
        both = torch.view_as_real(first.conj() * second).flatten(2)
        return as_complex(self.frequencies(both.to(x.dtype)))


def as_complex(parts: Tensor) -> Tensor:
    """Real and imaginary parts side by side for each feature, ``[…, 2 width]``, as ``[…, width]``."""
    return torch.view_as_complex(precise(parts).unflatten(-1, (-1, 2)).contiguous())
