"""Rotary positions (schemas in archspec.kinds.rope).

Frequencies and angles are made in float32, in the order in which published models were trained with them: at far places
another order gives other angles.
"""

from __future__ import annotations

import math
from itertools import product

import torch
from torch import Tensor

from archspec.kinds import rope as kinds
from archspec.kinds.threshold import share
from compiler.build import Make
from compiler.modules.position import table
from compiler.registry import Keeper, builds

LARGEST = 8192
"""Places of one axis that have a row in the tables; farther ones are computed when they come."""


@builds(kinds.Rope)
class Rope(Keeper):
    """Rotates queries and keys ``[batch, tokens, heads, width]``.

    Tables ``[places, rotated / 2]``; over a grid, each axis has its share of the columns.
    """

    def __init__(self, spec: kinds.Rope, make: Make) -> None:
        super().__init__()
        self.spec_, self.stream, self.values = spec, make.stream, spec.values
        self.rotated = int(make.stream.width * spec.share)
        self.most = make.stream.most or spec.length or 0
        self.rows = min(self.most, LARGEST) if len(make.stream.axes) == 1 else self.most
        for name in ("cos", "sin", *(("long_cos", "long_sin") if isinstance(spec.scaling, kinds.LongRope) else ())):
            table(self, name, self.rows, self.rotated // 2)

    def fill(self) -> None:
        axes = self.stream.axes
        sizes = [axis.most or self.spec_.length or 0 for axis in axes] if len(axes) > 1 else [self.rows]
        places = torch.tensor(list(product(*(range(size) for size in sizes))), device=self.cos.device)
        for prefix, length in (("", 0), ("long_", self.most + 1)) if "long_cos" in self._buffers else (("", 0),):
            rates, factor = self.rates(length)
            cos, sin = self.waves(places, rates.to(places.device), factor)
            self._buffers[f"{prefix}cos"].copy_(cos)  # type: ignore[union-attr]
            self._buffers[f"{prefix}sin"].copy_(sin)  # type: ignore[union-attr]

    def rates(self, length: int | Tensor) -> tuple[Tensor, float]:
        """Frequencies of one axis where there are so many places, and the factor on what is rotated."""
        spec = self.spec_
        return frequencies(spec.theta, self.rotated // len(self.stream.axes), spec.scaling, length, self.most)

    @staticmethod
    def waves(places: Tensor, rates: Tensor, factor: float) -> tuple[Tensor, Tensor]:
        """Cosines and sines at places ``[…, axes]``: ``[…, axes * frequencies]``."""
        angles = (places[..., None].float() * rates).flatten(-2)
        return angles.cos() * factor, angles.sin() * factor

    def forward(
        self, q: Tensor, k: Tensor, q_place: Tensor | None, k_place: Tensor | None, v: Tensor | None = None
    ) -> tuple[Tensor, ...]:  # fmt: skip
        length: int | Tensor = k.shape[1] if k_place is None or not k.shape[1] else k_place.max() + 1
        if self.decoding is not None and self.stream.causal and share(self.stream) is None:
            q_place = k_place = self.decoding.places(q.shape[1], q.device)
            start = self.decoding.start
            length = self.decoding.position + q.shape[1] - (0 if start is None else int(start.min()))
            waves = self.decoding.shared(id(self.cos), lambda: self.at(k.shape[1], k_place, length))
        else:
            waves = self.at(k.shape[1], k_place, length)
        same = q_place is k_place and q.shape[1] == k.shape[1]
        turned = self.rotate(q, waves if same else self.at(q.shape[1], q_place, length)), self.rotate(k, waves)
        return turned if v is None else (*turned, self.rotate(v, waves))

    def at(self, count: int, place: Tensor | None, length: int | Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines ``[1 or batch, tokens, 1, rotated / 2]`` of tokens at their places, or at the first ones.

        Args:
            length: places of the whole sequence.
        """
        scaling = self.spec_.scaling
        known = not isinstance(length, Tensor)
        far = length > self.rows if known else self.most > self.rows
        if isinstance(scaling, kinds.DynamicScaling):
            far = far or not known or length > scaling.length
        if isinstance(scaling, kinds.LongRope) and not known:
            short, long = self.row(count, place, 0, far), self.row(count, place, scaling.length + 1, far)
            cos, sin = (torch.where(length > scaling.length, b, a) for a, b in zip(short, long, strict=True))
        else:
            cos, sin = self.row(count, place, length, far)
        return cos[:, :, None], sin[:, :, None]

    def row(self, count: int, place: Tensor | None, length: int | Tensor, far: bool) -> tuple[Tensor, Tensor]:
        """Cosines and sines ``[1 or batch, tokens, rotated / 2]``: rows of the tables, or computed where ``far``."""
        scaling = self.spec_.scaling
        if far:
            places = torch.arange(count, device=self.cos.device)[None] if place is None else place
            rates, factor = self.rates(length)
            return self.waves(places[..., None], rates.to(places.device), factor)
        long = isinstance(scaling, kinds.LongRope) and length > scaling.length
        cos, sin = (self.long_cos, self.long_sin) if long else (self.cos, self.sin)
        return (cos[None, :count], sin[None, :count]) if place is None else (cos[place], sin[place])

    def rotate(self, x: Tensor, waves: tuple[Tensor, Tensor]) -> Tensor:
        """``[batch, tokens, heads, width]`` turned by its places."""
        cos, sin = waves[0].to(x.dtype), waves[1].to(x.dtype)
        turned, rest = (
            (x, None) if self.rotated == x.shape[-1] else x.split((self.rotated, x.shape[-1] - self.rotated), -1)
        )
        if self.spec_.layout == "halves":
            a, b = turned.chunk(2, dim=-1)
            turned = torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
        else:
            a, b = turned.unflatten(-1, (-1, 2)).unbind(-1)
            turned = torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)
        return turned if rest is None else torch.cat((turned, rest), dim=-1)


def frequencies(
    theta: float, width: int, scaling: kinds.Scaling | None, length: int | Tensor = 0, most: int = 0
) -> tuple[Tensor, float]:
    """Rotary frequencies ``[width / 2]`` and the factor on what is rotated (sources in archspec.kinds.rope).

    Args:
        length: places that the sequence has, for scalings that depend on it.
        most: places that it may have.
    """
    exponents = torch.arange(0, width, 2).float() / width
    factor = 1.0 if scaling is None else scaling.attention(most)
    match scaling:
        case kinds.LinearScaling():
            return 1.0 / theta**exponents / scaling.factor, factor
        case kinds.DynamicScaling():
            longer = torch.as_tensor(length).clamp(min=scaling.length)
            grown = scaling.factor * longer / scaling.length - (scaling.factor - 1)
            base = theta * grown ** (width / (width - 2))
            return 1.0 / base ** exponents.to(base.device), factor
        case kinds.Yarn():
            waves = theta**exponents
            kept = 1 - _ramp(theta, width, scaling)
            return 1.0 / (scaling.extension(most) * waves) * (1 - kept) + 1.0 / waves * kept, factor
        case kinds.LongRope():
            beyond = not isinstance(length, Tensor) and length > scaling.length
            if beyond:
                factor = scaling.long_attention_factor or factor
            return 1.0 / (torch.tensor(scaling.long if beyond else scaling.short) * theta**exponents), factor
        case kinds.Llama3Scaling():
            rates = 1.0 / theta**exponents
            wave = 2 * math.pi / rates
            smooth = ((scaling.length / wave - scaling.low) / (scaling.high - scaling.low)).clamp(0, 1)
            return (1 - smooth) * rates / scaling.factor + smooth * rates, factor
    return 1.0 / theta**exponents, factor


def _ramp(theta: float, width: int, scaling: kinds.Yarn) -> Tensor:
    """For each frequency 0 where it turns at least ``fast`` times within the length, 1 where at most ``slow`` times."""

    def feature(turns: float) -> float:
        return width * math.log(scaling.length / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = feature(scaling.fast), feature(scaling.slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    return ((torch.arange(width // 2).float() - low) / (high - low if high != low else 0.001)).clamp(0, 1)
