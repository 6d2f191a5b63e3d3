"""Convolutions over the tokens' grid (schemas in archspec.kinds.convolution)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kinds import convolution as kinds
from archspec.streams import Stream
from compiler.build import Make, weight
from compiler.registry import Keeper, builds
from compiler.tokens import Tokens


class GridConvolution(nn.Module):
    """A convolution over ``[batch, tokens, width]`` on a grid of one to three axes; a depthwise one by default."""

    def __init__(
        self, stream: Stream, *, size: int, bias: bool, dilation: int = 1, width: int = 0, groups: int = 0
    ) -> None:
        super().__init__()
        axes, width, self.groups = stream.axes, width or stream.width, groups or stream.width
        self.sizes = [axis.size if isinstance(axis.size, int) else -1 for axis in axes]
        self.causal, self.dilation = stream.causal, dilation
        self.reach = dilation * (size - 1)
        self.past = Past(self.reach) if self.causal else None
        self.weight = weight(width, stream.width // self.groups, *[size] * len(axes))
        self.bias = weight(width) if bias else None
        self.initial = {"weight": ("fan_in",), "bias": 0.0}

    def forward(self, x: Tensor) -> Tensor:
        grid = x.transpose(1, 2)
        if len(self.sizes) > 1:
            grid = grid.unflatten(2, self.sizes)
        pad = self.reach // 2
        if self.past is not None:
            grid, pad = self.past(grid), 0
        convolve = (F.conv1d, F.conv2d, F.conv3d)[len(self.sizes) - 1]
        y = convolve(grid, self.weight, self.bias, padding=pad, dilation=self.dilation, groups=self.groups)
        return y.flatten(2).transpose(1, 2)


class Past(Keeper):
    """``[batch, width, tokens]`` with the tokens before them to which a convolution reaches back: zeros at first."""

    def __init__(self, reach: int) -> None:
        super().__init__()
        self.reach = reach

    def forward(self, x: Tensor) -> Tensor:
        if self.decoding is None:
            return F.pad(x, (self.reach, 0))
        kept, real = self.decoding.kept(self), self.decoding.real(x.shape[2])
        if real is not None:
            x = x * real[:, None]
        tail = kept.get("tail")
        whole = F.pad(x, (self.reach, 0)) if tail is None else torch.cat((tail, x), dim=2)
        kept["tail"] = whole[:, :, whole.shape[2] - self.reach :].clone()
        return whole


@builds(kinds.Convolution, kinds.DepthwiseConvolution)
class Convolution(nn.Module):
    def __init__(self, spec: kinds.Convolution | kinds.DepthwiseConvolution, make: Make) -> None:
        super().__init__()
        width, groups = (make.node.output.width, spec.groups) if isinstance(spec, kinds.Convolution) else (0, 0)
        self.convolution = GridConvolution(
            make.stream, size=spec.size, bias=spec.bias, dilation=spec.dilation, width=width, groups=groups
        )

    def forward(self, x: Tokens) -> Tensor:
        features = x.features
        if x.valid is not None:  # padding is silence to its neighbours
            features = features * x.valid[..., None]
        out: Tensor = self.convolution(features)
        return out
