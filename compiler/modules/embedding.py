"""Embeddings and learned tokens (schemas in archspec.kinds.embedding)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kind import Matrix
from archspec.kinds import embedding as kinds
from archspec.streams import Stream
from compiler.build import Make, main, plain_linear, weight
from compiler.registry import builds
from compiler.tokens import Tokens


@builds(kinds.TokenEmbedding)
class TokenEmbedding(nn.Module):
    def __init__(self, spec: kinds.TokenEmbedding, make: Make) -> None:
        super().__init__()
        self.weight = weight(spec.vocab or make.stream.width, spec.width)
        self.scale = spec.scale
        self.initial = {"weight": ("normal", spec.std) if spec.std is not None else ("scheme",)}

    def forward(self, x: Tokens) -> Tensor:
        rows = F.embedding(x.features, self.weight)
        return rows if self.scale == 1 else rows * self.scale


@builds(kinds.LabelEmbedding)
class LabelEmbedding(nn.Module):
    def __init__(self, spec: kinds.LabelEmbedding, make: Make) -> None:
        super().__init__()
        self.label = spec.label
        self.weight = weight(dict(make.stream.labels)[spec.label], make.stream.width)
        self.initial = {"weight": ("normal", spec.std)}

    def forward(self, x: Tokens) -> Tensor:
        return x.features + F.embedding(x.labels[self.label], self.weight)


@builds(kinds.PatchEmbedding)
class PatchEmbedding(nn.Module):
    """A convolution over ``[batch, tokens, channels]``; whole patches are one matrix product."""

    def __init__(self, spec: kinds.PatchEmbedding, make: Make) -> None:
        super().__init__()
        stream = make.stream
        self.sizes = [int(axis.size) for axis in stream.axes]
        self.size, self.kernel, self.padding = spec.size, spec.kernel or spec.size, spec.padding
        self.whole = self.kernel == self.size and not self.padding
        area = self.kernel ** len(self.sizes)
        self.channels = stream.width
        self.linear = plain_linear(Matrix(stream.width * area, spec.width, spec.bias))
        self.norm = make.body("norm") if make.has("norm") else None
        self.stream_out = make.node.output

    def forward(self, x: Tokens, outer: Mapping[str, Tokens] | None = None) -> Tokens:
        if self.whole:
            patches = blocks(x.features, self.sizes, self.size)
            y = self.linear(patches.flatten(2))
        else:
            grid = x.features.unflatten(1, self.sizes).movedim(-1, 1)
            kernel = self.linear.weight.unflatten(1, [*[self.kernel] * len(self.sizes), self.channels]).movedim(-1, 1)
            convolve = (F.conv1d, F.conv2d, F.conv3d)[len(self.sizes) - 1]
            y = (
                convolve(grid, kernel, self.linear.bias, stride=self.size, padding=self.padding)
                .flatten(2)
                .transpose(1, 2)
            )
        out = Tokens(y, self.stream_out)
        return out if self.norm is None else main(self.norm, out, outer=outer or {})


def blocks(x: Tensor, sizes: list[int], size: int) -> Tensor:
    """``[batch, tokens, width]`` on a grid to ``[batch, blocks, tokens of a block, width]``."""
    split = [part for whole in sizes for part in (whole // size, size)]
    grid = x.unflatten(1, split)
    count = len(sizes)
    outer, inner = [1 + 2 * axis for axis in range(count)], [2 + 2 * axis for axis in range(count)]
    moved = grid.permute(0, *outer, *inner, 2 * count + 1)
    return moved.flatten(1 + count, 2 * count).flatten(1, count)


def unblocks(x: Tensor, sizes: list[int], size: int) -> Tensor:
    """The reverse of `blocks`; ``sizes`` of the whole grid."""
    count = len(sizes)
    grid = x.unflatten(2, [size] * count).unflatten(1, [whole // size for whole in sizes])
    order = [place for axis in range(count) for place in (1 + axis, 1 + count + axis)]
    return grid.permute(0, *order, 2 * count + 1).flatten(1, 2 * count)


@builds(kinds.LearnedQueries)
class LearnedQueries(nn.Module):
    def __init__(self, spec: kinds.LearnedQueries, make: Make) -> None:
        super().__init__()
        self.out = make.node.output
        self.weight = weight(1, spec.count, spec.width)
        self.initial = {"weight": ("normal", spec.std)}

    def forward(self, like: Tokens) -> Tokens:
        return Tokens(self.weight.expand(like.features.shape[0], -1, -1), self.out)


@builds(kinds.ClassToken)
class ClassToken(nn.Module):
    def __init__(self, spec: kinds.ClassToken, make: Make) -> None:
        super().__init__()
        self.weight = weight(1, spec.count, make.stream.width)
        self.initial = {"weight": ("normal", spec.std)}
        self.last = spec.last
        self.stream_out: Stream = make.node.output

    def forward(self, x: Tokens) -> Tokens:
        token = self.weight.expand(x.features.shape[0], -1, -1)
        both = (x.features, token) if self.last else (token, x.features)
        out = Tokens(torch.cat(both, dim=1), self.stream_out)
        if x.valid is None and not x.labels:
            return out
        extra = token[..., 0]
        valid = None
        if x.valid is not None:
            ones = torch.ones_like(extra, dtype=torch.bool)
            valid = torch.cat((x.valid, ones) if self.last else (ones, x.valid), dim=1)
        zeros = {name: torch.zeros_like(extra, dtype=value.dtype) for name, value in x.labels.items()}
        labels = {n: torch.cat((v, zeros[n]) if self.last else (zeros[n], v), dim=1) for n, v in x.labels.items()}
        return Tokens(out.features, self.stream_out, valid=valid, labels=labels)
