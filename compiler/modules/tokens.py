"""Token operations (schemas in archspec.kinds.tokens)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kinds import tokens as kinds
from compiler.build import Make, main, project
from compiler.modules.embedding import blocks, unblocks
from compiler.modules.heads import fitting
from compiler.registry import Leaf, builds
from compiler.tokens import Tokens

Outer = Mapping[str, Tokens]


@builds(kinds.Pool)
class Pool(nn.Module):
    def __init__(self, spec: kinds.Pool, make: Make) -> None:
        super().__init__()
        self.spec_, self.out = spec, make.node.output
        self.axes = [(axis.name, axis.size if isinstance(axis.size, int) else -1) for axis in make.stream.axes]
        self.last = LastValid() if spec.take in ("first", "last") else None

    def forward(self, x: Tokens) -> Tokens:
        spec = self.spec_
        if self.last is not None:
            edge = x.features[:, 0] if spec.take == "first" else self.last(x.features, x.valid)
            return Tokens(edge, self.out)
        if spec.take is not None:
            span = x.stream.span(spec.take)
            assert span is not None
            return Tokens(x.span(spec.take, x.stream.on(span)).features.flatten(1), self.out)
        if spec.window is not None:
            grid = blocks(x.features, [size for _, size in self.axes], spec.window)
            return Tokens(self.reduce(grid, [2], None), self.out)
        if spec.over is None or len(spec.over) == len(self.axes):
            return Tokens(self.reduce(x.features, [1], x.valid), self.out)
        places = [1 + number for number, (name, _) in enumerate(self.axes) if name in spec.over]
        grid = self.reduce(x.features.unflatten(1, [size for _, size in self.axes]), places, None)
        return Tokens(grid.flatten(1, -2), self.out)

    def reduce(self, x: Tensor, places: list[int], valid: Tensor | None) -> Tensor:
        how = self.spec_.how
        if valid is not None:
            weights = valid[..., None].to(x.dtype)
            if how == "max":
                return x.masked_fill(~valid[..., None], float("-inf")).amax(places)
            total = (x * weights).sum(places)
            return total if how == "sum" else total / weights.sum(places).clamp(min=1)
        return x.amax(places) if how == "max" else x.sum(places) if how == "sum" else x.mean(places)


class LastValid(Leaf):
    """The last valid token of ``[batch, tokens, width]``."""

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        if valid is None:
            return x[:, -1]
        places = torch.arange(x.shape[1], device=x.device)
        last = (valid * places).amax(dim=1)
        return x.gather(1, last[:, None, None].expand(-1, 1, x.shape[-1])).squeeze(1)


@builds(kinds.Join)
class Join(nn.Module):
    def __init__(self, spec: kinds.Join, make: Make) -> None:
        super().__init__()
        self.out = make.node.output
        self.rows = Rows()

    def forward(self, *inputs: Tokens) -> Tokens:
        features = [t.features if t.stream.spans else t.features[:, None] for t in inputs]
        joined = Tokens(torch.cat(features, dim=1), self.out)
        if self.out.valid:
            joined = replace(joined, valid=self.rows(features, [t.valid for t in inputs]))
        if self.out.segmented:
            joined = replace(joined, segment=self.rows(features, [t.segment for t in inputs]))
        labels = {name: self.rows(features, [t.labels[name] for t in inputs]) for name, _ in self.out.labels}
        return replace(joined, labels=labels)


class Rows(Leaf):
    """What tokens of several streams carry, ``[batch, tokens]`` each, one after another; true where there is none."""

    def forward(self, features: Sequence[Tensor], rows: Sequence[Tensor | None]) -> Tensor:
        parts = [
            torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if row is None else fitting(row, x.shape[0])
            for x, row in zip(features, rows, strict=True)
        ]
        return torch.cat(parts, dim=1)


@builds(kinds.Combine)
class Combine(nn.Module):
    def __init__(self, spec: kinds.Combine, make: Make) -> None:
        super().__init__()
        self.how, self.out = spec.how, make.node.output

    def forward(self, *inputs: Tokens) -> Tokens:
        first = inputs[0]
        vector = [bool(first.stream.spans) and not t.stream.spans for t in inputs]
        features = [t.features[:, None] if alone else t.features for t, alone in zip(inputs, vector, strict=True)]
        if self.how == "concat":
            wide = [
                f.expand(-1, first.features.shape[1], -1) if alone else f
                for f, alone in zip(features, vector, strict=True)
            ]
            return first.give(torch.cat(wide, dim=-1), self.out)
        total = features[0]
        for other in features[1:]:
            if self.how == "multiply":
                total = total * other
            else:
                total = total - other if self.how == "subtract" else total + other
        return first.give(total / len(inputs) if self.how == "mean" else total, self.out)


@builds(kinds.PatchMerging)
class PatchMerging(nn.Module):
    def __init__(self, spec: kinds.PatchMerging, make: Make) -> None:
        super().__init__()
        self.factor, self.place, self.out = spec.factor, spec.place, make.node.output
        self.sizes = [int(axis.size) for axis in make.stream.axes]
        self.norm = make.body("norm") if make.has("norm") else None
        self.linear = make.linear("weight")

    def forward(self, x: Tokens, outer: Outer | None = None) -> Tokens:
        merged = Tokens(blocks(x.features, self.sizes, self.factor).flatten(2), self.out)
        if self.norm is not None and self.place == "before":
            merged = main(self.norm, merged, outer=outer or {})
        out = Tokens(project(self.linear, merged.features, merged), self.out)
        return main(self.norm, out, outer=outer or {}) if self.norm is not None and self.place == "after" else out


@builds(kinds.PatchExpanding)
class PatchExpanding(nn.Module):
    def __init__(self, spec: kinds.PatchExpanding, make: Make) -> None:
        super().__init__()
        self.spec_, self.out = spec, make.node.output
        self.sizes = [int(axis.size) for axis in make.node.output.axes]
        self.linear = make.linear("weight")

    def forward(self, x: Tokens) -> Tokens:
        area = self.spec_.factor ** len(self.sizes)
        parts = project(self.linear, x.features, x).unflatten(-1, (area, self.spec_.width))
        return Tokens(unblocks(parts, self.sizes, self.spec_.factor), self.out)


@builds(kinds.Gather)
class Gather(nn.Module):
    def __init__(self, spec: kinds.Gather, make: Make) -> None:
        super().__init__()
        self.out = make.node.output
        self.group = make.node.matrices["weight"][0].inputs // make.stream.width
        self.norm = make.body("norm") if make.has("norm") else None
        self.norm_after = make.body("norm_after") if make.has("norm_after") else None
        self.linear = make.linear("weight")

    def forward(self, x: Tokens, outer: Outer | None = None) -> Tokens:
        joined = Tokens(x.features.unflatten(1, (-1, self.group)).flatten(2), self.out)
        if self.norm is not None:
            joined = main(self.norm, joined, outer=outer or {})
        out = Tokens(project(self.linear, joined.features, joined), self.out)
        return out if self.norm_after is None else main(self.norm_after, out, outer=outer or {})


@builds(kinds.Regroup)
class Regroup(nn.Module):
    def __init__(self, spec: kinds.Regroup, make: Make) -> None:
        super().__init__()
        self.size, self.out = spec.size, make.node.output
        self.sizes = [int(axis.size) for axis in make.stream.axes]

    def forward(self, x: Tokens) -> Tokens:
        return Tokens(blocks(x.features, self.sizes, self.size).flatten(1, 2), self.out)


@builds(kinds.Resize)
class Resize(nn.Module):
    def __init__(self, spec: kinds.Resize, make: Make) -> None:
        super().__init__()
        self.spec_, self.out = spec, make.node.output
        self.sizes = [int(axis.size) for axis in make.stream.axes]

    def forward(self, x: Tokens) -> Tokens:
        grid = x.features.unflatten(1, self.sizes).movedim(-1, 1)
        other = F.interpolate(grid, size=self.spec_.size, mode=self.spec_.how)
        return Tokens(other.flatten(2).transpose(1, 2), self.out)


@builds(kinds.Flatten, kinds.Rename, kinds.Whole)
class Retyped(nn.Module):
    """The same tokens under another type."""

    def __init__(self, spec: kinds.Flatten | kinds.Rename | kinds.Whole, make: Make) -> None:
        super().__init__()
        self.out = make.node.output

    def forward(self, x: Tokens) -> Tokens:
        return replace(x, stream=self.out)
