"""Convolutions over the tokens' grid (schemas in archspec.kinds.convolution)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kinds import convolution as kinds
from archspec.streams import Stream
from compiler.build import Make, project, weight
from compiler.registry import Keeper, Leaf, builds
from compiler.tokens import Tokens


class GridConvolution(nn.Module):
    """A convolution over ``[batch, tokens, width]`` on a grid of one to three axes; a depthwise one by default."""

    def __init__(
        self, stream: Stream, *, size: int, bias: bool, dilation: int = 1, width: int = 0, groups: int = 0,
        circular: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.circular = circular
        axes, width, self.groups = stream.axes, width or stream.width, groups or stream.width
        self.sizes = [axis.size if isinstance(axis.size, int) else -1 for axis in axes]
        self.causal, self.dilation = stream.causal, dilation
        self.reach = dilation * (size - 1)
        self.past = Past(self.reach) if self.causal else None
        depthwise = self.groups == stream.width == width
        self.slide = Slide(dilation) if self.causal and depthwise else None
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
        elif self.circular:
            grid, pad = F.pad(grid, [pad] * 2 * len(self.sizes), mode="circular"), 0
        if self.slide is not None:
            out: Tensor = self.slide(grid.transpose(1, 2), self.weight)
            return out if self.bias is None else out + self.bias
        convolve = (F.conv1d, F.conv2d, F.conv3d)[len(self.sizes) - 1]
        y = convolve(grid, self.weight, self.bias, padding=pad, dilation=self.dilation, groups=self.groups)
        return y.flatten(2).transpose(1, 2)


class Past(Keeper):
    """``[batch, width, tokens]`` with the tokens before them to which a convolution reaches back: zeros at first."""

    def __init__(self, reach: int) -> None:
        super().__init__()
        self.reach = reach

    def forward(self, x: Tensor) -> Tensor:
        if self.decoding is None:  # padded as rows of tokens, which they mostly are in memory
            return F.pad(x.transpose(1, 2), (0, 0, self.reach, 0)).transpose(1, 2)
        kept, real = self.decoding.kept(self), self.decoding.real(x.shape[2])
        if real is not None:
            x = x * real[:, None]
        tail = kept.get("tail")
        whole = F.pad(x, (self.reach, 0)) if tail is None else torch.cat((tail, x), dim=2)
        kept["tail"] = whole[:, :, whole.shape[2] - self.reach :].clone()
        return whole


class Slide(Leaf):
    """Filters ``[width, 1, taps]`` over ``[batch, tokens + reach, width]``: ``[batch, tokens, width]``."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation

    def forward(self, x: Tensor, taps: Tensor) -> Tensor:
        if x.device.type == "cpu" and x.requires_grad | taps.requires_grad and torch.is_grad_enabled():
            out: Tensor = _Slide.apply(x, taps, self.dilation)
            return out
        return slide(x, taps, self.dilation)


def slide(x: Tensor, taps: Tensor, dilation: int) -> Tensor:
    """As of images one pixel high whose features lie side by side in memory, the form for which kernels are fast."""
    image = x.transpose(1, 2)[:, :, None]
    return F.conv2d(image, taps[:, :, None], dilation=(1, dilation), groups=x.shape[2])[:, :, 0].transpose(1, 2)


class _Slide(torch.autograd.Function):
    """`slide` with a gradient of the taps that is a sum for each, where torch's own takes many times the forward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(x, taps)
        ctx.dilation = dilation
        return slide(x, taps, dilation)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, taps = ctx.saved_tensors
        grad, dilation, tokens = grads[0], ctx.dilation, grads[0].shape[1]
        reach = x.shape[1] - tokens
        back = slide(F.pad(grad, (0, 0, reach, reach)), taps.flip(2), dilation)
        sums = [(x[:, start : start + tokens] * grad).sum((0, 1)) for start in range(0, reach + 1, dilation)]
        return back, torch.stack(sums, dim=-1)[:, None], None


@builds(kinds.Convolution, kinds.DepthwiseConvolution)
class Convolution(nn.Module):
    def __init__(self, spec: kinds.Convolution | kinds.DepthwiseConvolution, make: Make) -> None:
        super().__init__()
        width, groups = (make.node.output.width, spec.groups) if isinstance(spec, kinds.Convolution) else (0, 0)
        circular = isinstance(spec, kinds.DepthwiseConvolution) and spec.circular
        self.convolution = GridConvolution(
            make.stream, size=spec.size, bias=spec.bias, dilation=spec.dilation, width=width, groups=groups,
            circular=circular,
        )  # fmt: skip

    def forward(self, x: Tokens) -> Tensor:
        features = x.features
        if x.valid is not None:  # padding is silence to its neighbours
            features = features * x.valid[..., None]
        out: Tensor = self.convolution(features)
        return out


@builds(kinds.ShortConvolution)
class ShortConvolution(nn.Module):
    """The two gates and the value as one product; the convolution between the gates."""

    def __init__(self, spec: kinds.ShortConvolution, make: Make) -> None:
        super().__init__()
        roles = ("input_gate", "output_gate", "value")
        self.inputs = make.fused(*roles) if make.plain(*roles) else None
        if self.inputs is None:
            self.input_gate, self.output_gate, self.value = (make.linear(role) for role in roles)
        self.convolution = GridConvolution(make.stream.wide(spec.inner(make.stream)), size=spec.size, bias=spec.bias)
        self.out = make.linear("out")

    def forward(self, x: Tokens) -> Tensor:
        if self.inputs is not None:
            parts = self.inputs(x.features).chunk(3, dim=-1)
            before, after, value = parts[0], parts[1], parts[2]
        else:
            before, after = project(self.input_gate, x.features, x), project(self.output_gate, x.features, x)
            value = project(self.value, x.features, x)
        value = before * value
        if x.valid is not None:  # padding is silence to its neighbours
            value = value * x.valid[..., None]
        return project(self.out, after * self.convolution(value), x)
