"""Partition (schemas in archspec.kinds.partition): groups go into the batch, a body runs, and they come back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kinds import partition as kinds
from archspec.kinds.partition import Cut, inner
from archspec.streams import Stream
from compiler.build import Make, call
from compiler.modules.combinator import named
from compiler.modules.position import table
from compiler.registry import Leaf, builds
from compiler.tokens import Tokens


@builds(kinds.Partition)
class Partition(nn.Module):
    def __init__(self, spec: kinds.Partition, make: Make) -> None:
        super().__init__()
        node = make.node
        names = tuple(str(ref).rsplit(".", 1)[-1] for ref in node.inputs)
        cuts = spec.schemes(node.bodies, node.types, names)
        self.grids = [Grid(stream, cut) for stream, cut in zip(node.types, cuts, strict=True)]
        self.places = nn.ModuleList(Places(grid) for grid in self.grids)
        self.body = make.body("body")
        self.outputs = node.outputs

    def forward(self, *inputs: Tokens, outer: Mapping[str, Tokens]) -> dict[str, Tokens]:
        batch = inputs[0].features.shape[0]
        inside = [self.split(*parts) for parts in zip(self.grids, self.places, inputs, strict=True)]
        if outer:
            groups = inside[0].features.shape[0] // batch
            outer = {name: repeated(tokens, groups) for name, tokens in outer.items()}
        result = {}
        for port, tokens in named(call(self.body, *inside, outer=outer)).items():
            stream = self.outputs[port]
            same = [n for n, grid in enumerate(self.grids) if grid.inside.spans == tokens.stream.spans]
            if same:
                joined = self.grids[same[0]].join(tokens.features, batch)
                result[port] = inputs[same[0]].give(joined, stream)
            else:  # groups of another length, in their order
                result[port] = Tokens(tokens.features.reshape(batch, -1, stream.width), stream)
        return result

    def split(self, grid: Grid, places: Places, tokens: Tokens) -> Tokens:
        """The groups of one stream."""
        features = grid.split(tokens.features)

        def cut(tensor: Tensor) -> Tensor:
            return grid.split(tensor[..., None])[..., 0]

        names = ("coordinates", "valid", "segment")
        carried = {name: cut(getattr(tokens, name)) for name in names if getattr(tokens, name) is not None}
        if grid.pads:
            filled = places("valid", features)
            carried["valid"] = carried["valid"] & filled if "valid" in carried else filled
        if grid.shifted:
            carried["segment"] = places("segment", features)
        labels = {name: cut(value) for name, value in tokens.labels.items()}
        return Tokens(features, grid.inside, labels=labels, **carried)


def repeated(tokens: Tokens, groups: Any) -> Tokens:
    """A stream from outside, once for every group."""

    def spread(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.repeat_interleave(groups, dim=0)

    return replace(
        tokens,
        features=tokens.features.repeat_interleave(groups, dim=0),
        coordinates=spread(tokens.coordinates),
        valid=spread(tokens.valid),
        segment=spread(tokens.segment),
        labels={name: value.repeat_interleave(groups, dim=0) for name, value in tokens.labels.items()},
    )


class Grid:
    """``[batch, tokens, width]`` to ``[batch * groups, tokens of a group, width]`` and back."""

    def __init__(self, stream: Stream, cuts: list[Cut]) -> None:
        self.inside = inner(stream, cuts)
        self.sizes = [_number(cut.axis.size) for cut in cuts]
        self.padded = [cut.padded or size for cut, size in zip(cuts, self.sizes, strict=True)]
        self.pads = self.padded != self.sizes
        self.shifts = [cut.shift for cut in cuts]
        self.shifted = any(self.shifts)
        self.axes = len(cuts)
        groups, group = [_number(cut.groups) for cut in cuts], [_number(cut.size) for cut in cuts]
        self.together = [*groups, *group]
        self.apart: list[int] = []
        outer, inside = [], []
        for axis, cut in enumerate(cuts):
            pair = [groups[axis], group[axis]]
            self.apart += pair[::-1] if cut.strided else pair
            outer.append(1 + 2 * axis + cut.strided)
            inside.append(2 + 2 * axis - cut.strided)
        last = 1 + 2 * self.axes
        self.order = [0, *outer, *inside, last]
        self.back = [self.order.index(place) for place in range(last + 1)]

    def split(self, x: Tensor) -> Tensor:
        """The groups of ``[batch, tokens, width]``."""
        grid = x.unflatten(1, self.sizes) if self.axes > 1 else x
        if self.pads:
            amounts = [part for new, old in zip(self.padded, self.sizes, strict=True) for part in (new - old, 0)]
            grid = F.pad(grid, [0, 0, *amounts[::-1]])
        if self.shifted:
            grid = grid.roll([-shift for shift in self.shifts], list(range(1, 1 + self.axes)))
        grid = grid.reshape(x.shape[0], *self.apart, x.shape[-1]).permute(self.order)
        return grid.flatten(1 + self.axes, 2 * self.axes).flatten(0, self.axes)

    def join(self, x: Tensor, batch: Any) -> Tensor:
        """The tokens of all groups in their places."""
        grid = x.reshape(batch, *self.together, x.shape[-1]).permute(self.back)
        grid = grid.reshape(batch, *self.padded, x.shape[-1])
        if self.shifted:
            grid = grid.roll(self.shifts, list(range(1, 1 + self.axes)))
        if self.pads:
            for axis, size in enumerate(self.sizes):
                grid = grid.narrow(1 + axis, 0, size)
        return grid.flatten(1, self.axes) if self.axes > 1 else grid


def _number(size: int | str) -> int:
    return size if isinstance(size, int) else -1


class Places(Leaf):
    """What is known of each place of each group: whether it is real, and which side of a shift's seam it is on."""

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        if grid.pads or grid.shifted:
            groups, size = _product(grid.together[: grid.axes]), _product(grid.together[grid.axes :])
            if grid.pads:
                table(self, "valid", groups, size, dtype=torch.bool)
            if grid.shifted:
                table(self, "segment", groups, size, dtype=torch.int64)

    def fill(self) -> None:
        grid = self.grid
        if grid.pads:
            self.valid.copy_(grid.split(torch.ones(1, _product(grid.sizes), 1))[..., 0] > 0)
        if grid.shifted:
            seams = torch.zeros(grid.padded, dtype=torch.int64)
            for axis, (size, shift) in enumerate(zip(grid.padded, grid.shifts, strict=True)):
                wrapped = torch.arange(size) < shift  # these roll over to the far end
                seams = 2 * seams + wrapped.view([-1 if other == axis else 1 for other in range(grid.axes)])
            rolled = Grid.__new__(Grid)
            rolled.__dict__.update(grid.__dict__, sizes=grid.padded, pads=False)
            self.segment.copy_(rolled.split(seams.flatten()[None, :, None])[..., 0])

    def forward(self, name: str, like: Tensor) -> Tensor:
        """``valid [batch * groups, tokens]`` or ``segment [groups, tokens]``."""
        rows: Tensor = self.valid if name == "valid" else self.segment
        return rows.repeat(like.shape[0] // rows.shape[0], 1)


def _product(sizes: list[int]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total
