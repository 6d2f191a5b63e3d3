"""A norm over batches, and blends of two bodies (schemas in archspec.kinds.batch_norm)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kinds import batch_norm as kinds
from compiler.build import Make, main, weight
from compiler.moving import now, number
from compiler.registry import Leaf, builds
from compiler.tokens import Tokens


@builds(kinds.BatchNorm)
class BatchNorm(nn.Module):
    def __init__(self, spec: kinds.BatchNorm, make: Make) -> None:
        super().__init__()
        self.norm = Statistics(spec, make.stream.width)

    def forward(self, x: Tokens) -> Tensor:
        out: Tensor = self.norm(x.features, x.valid)
        return out


class Statistics(Leaf):
    """Features ``[..., width]`` normalised over all but the last dimension; ``valid [batch, tokens]`` tell who counts.

    Attributes:
        running_mean, running_var: means over the batches of training, with the variances of samples.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, spec: kinds.BatchNorm, width: int) -> None:
        super().__init__()
        self.eps, self.momentum = spec.eps, spec.momentum
        self.weight = weight(width) if spec.affine else None
        self.bias = weight(width) if spec.affine else None
        self.gain = weight(1) if spec.skip else None
        self.initial = {"weight": 1.0, "bias": 0.0, "gain": 1.0}
        for name in ("running_mean", "running_var"):
            self.register_buffer(name, torch.empty(width, device="meta"))

    def fill(self) -> None:
        self.running_mean.zero_()
        self.running_var.fill_(1)

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        if self.training and valid is not None:
            y = self.counted(x, valid.expand(x.shape[:2]))
        else:
            rows, mean, variance = x.flatten(0, -2), self.running_mean, self.running_var
            several = self.training and rows.shape[0] > 1  # one alone has no variance: the running ones serve
            y = F.batch_norm(rows, mean, variance, self.weight, self.bias, several, self.momentum, self.eps).view_as(x)
        return y if self.gain is None else y + self.gain * x

    def counted(self, x: Tensor, valid: Tensor) -> Tensor:
        """Normalised by the statistics of valid tokens."""
        share = valid.to(x.dtype).reshape(*valid.shape, *[1] * (x.ndim - 2))
        count = share.sum() * x[0, 0, ..., 0].numel()
        dims = tuple(range(x.ndim - 1))
        mean = (x * share).sum(dims) / count
        variance = ((x - mean).square() * share).sum(dims) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            sampled = variance * count / (count - 1)
            self.running_var.lerp_(sampled.to(self.running_var.dtype), self.momentum)
        y = (x - mean) * torch.rsqrt(variance + self.eps)
        return y if self.weight is None or self.bias is None else y * self.weight + self.bias

    def affine(self) -> tuple[Tensor, Tensor]:
        """What it multiplies features by in inference, and what it adds, in float64."""
        scale = torch.rsqrt(self.running_var.double() + self.eps)
        shift = -self.running_mean.double() * scale
        if self.weight is not None and self.bias is not None:
            scale, shift = scale * self.weight.double(), shift * self.weight.double() + self.bias.double()
        return scale if self.gain is None else scale + self.gain.double(), shift


@builds(kinds.Blend)
class Blend(nn.Module):
    def __init__(self, spec: kinds.Blend, make: Make) -> None:
        super().__init__()
        self.factor = number(spec.factor)
        self.first = make.body("first") if spec.factor != 0 else None
        self.second = make.body("second") if spec.factor != 1 else None

    def forward(self, x: Tokens, outer: Mapping[str, Tokens]) -> Tokens:
        bodies = [body for body in (self.first, self.second) if body is not None]
        outs = [main(body, x, outer=outer) for body in bodies]
        if len(outs) == 1:
            return outs[0]
        share = now(self.factor)
        return outs[0].give(share * outs[0].features + (1 - share) * outs[1].features, outs[0].stream)
