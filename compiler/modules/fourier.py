"""Fourier mixing (schema in archspec.kinds.fourier)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from archspec.kinds import fourier as kinds
from compiler.build import Make
from compiler.modules.recurrence import precise
from compiler.registry import Leaf, builds
from compiler.tokens import Tokens


@builds(kinds.Fourier)
class Fourier(nn.Module):
    def __init__(self, spec: kinds.Fourier, make: Make) -> None:
        super().__init__()
        self.transform = Transform([axis.size if isinstance(axis.size, int) else -1 for axis in make.stream.axes])

    def forward(self, x: Tokens) -> Tensor:
        out: Tensor = self.transform(x.features, x.valid)
        return out


class Transform(Leaf):
    """``Re(F x F')`` of ``[batch, tokens, width]``, in at least single precision.

    With ``valid [batch or 1, tokens]`` sequences have lengths of their own, so the transform along them is a product
    with the matrix of each: its rows and columns are the real tokens. Padding gives zeros.
    """

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self.sizes = sizes

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        given = precise(x)
        if valid is not None:
            return ragged(given, valid).to(x.dtype)
        grid = given.unflatten(1, self.sizes) if len(self.sizes) > 1 else given
        y = torch.fft.fftn(grid, dim=list(range(1, grid.ndim))).real
        return (y.flatten(1, -2) if len(self.sizes) > 1 else y).to(x.dtype)


def ragged(x: Tensor, valid: Tensor) -> Tensor:
    """The transform of the real tokens of each sample."""
    spectrum = torch.fft.fft(x, dim=-1)
    place = valid.cumsum(1) - 1
    length = valid.sum(1).clamp(min=1)[:, None, None]
    turns = (place[:, :, None] * place[:, None, :]) % length / length.to(x.dtype)  # whole turns change nothing
    both = valid[:, :, None] & valid[:, None, :]
    cos, sin = (wave(2 * math.pi * turns) * both for wave in (torch.cos, torch.sin))
    return cos @ spectrum.real + sin @ spectrum.imag
