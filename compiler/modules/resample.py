"""Fewer tokens along a sequence, and as many again (schemas in archspec.kinds.resample)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kinds import resample as kinds
from compiler.build import Make
from compiler.registry import Leaf, builds
from compiler.tokens import Tokens


@builds(kinds.Downsample)
class Downsample(nn.Module):
    def __init__(self, spec: kinds.Downsample, make: Make) -> None:
        super().__init__()
        self.out = make.node.output
        self.join = JoinNeighbours(spec)

    def forward(self, x: Tokens) -> Tokens:
        found = self.join(x.features, x.valid, *x.labels.values())
        labels = {name: found[2 + number] for number, name in enumerate(x.labels)}
        return Tokens(found[0], self.out, valid=None if x.valid is None else found[1], labels=labels)


class JoinNeighbours(Leaf):
    """Groups of neighbours of ``[batch, tokens, width]``: their features, whether they are real, and their labels."""

    def __init__(self, spec: kinds.Downsample) -> None:
        super().__init__()
        self.factor, self.lone, self.how, self.all = spec.factor, int(spec.lone_first), spec.how, spec.real == "all"
        self.cut = spec.factor - 1 if spec.truncate else 0

    def forward(self, x: Tensor, valid: Tensor | None, *labels: Tensor) -> tuple[Tensor | None, ...]:
        lone, size = self.lone, self.factor
        if x.shape[1] <= 1 + lone:
            return x, valid, *labels
        stop = max(lone, x.shape[1] - self.cut)
        count = -(-(stop - lone) // size)
        fill = count * size - (stop - lone)
        groups = F.pad(x[:, lone:stop], (0, 0, 0, fill)).unflatten(1, (count, size))
        there = (torch.arange(count * size, device=x.device) < stop - lone).unflatten(0, (count, size))[None]
        real = there
        if valid is not None:
            real = F.pad(valid[:, lone:stop], (0, fill)).unflatten(1, (count, size))
        counted = (there if self.all else real)[..., None]
        if self.how == "max":
            found = groups.masked_fill(~counted, torch.finfo(x.dtype).min).amax(dim=2) * counted.any(dim=2)
        else:
            found = (groups * counted).sum(dim=2) / counted.sum(dim=2).clamp(min=1)
        features = torch.cat((x[:, :lone], found), dim=1)
        if valid is not None:
            whole = (real | ~there).all(dim=2) if self.all else real.any(dim=2)
            valid = torch.cat((valid[:, :lone], whole), dim=1)
        firsts = [torch.cat((label[:, :lone], label[:, lone:stop:size]), dim=1) for label in labels]
        return features, valid, *firsts


@builds(kinds.Upsample)
class Upsample(nn.Module):
    def __init__(self, spec: kinds.Upsample, make: Make) -> None:
        super().__init__()
        self.out = make.node.output
        self.repeat = RepeatTokens(spec)

    def forward(self, x: Tokens, like: Tokens) -> Tokens:
        return like.give(self.repeat(x.features, like.features), self.out)


class RepeatTokens(Leaf):
    """``[batch, tokens, width]`` with every token repeated, as many tokens as ``like`` has."""

    def __init__(self, spec: kinds.Upsample) -> None:
        super().__init__()
        self.factor, self.lone = spec.factor, int(spec.lone_first)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        wanted = like.shape[1] - self.lone
        many = x[:, self.lone :].repeat_interleave(self.factor, dim=1)
        many = F.pad(many, (0, 0, 0, max(0, wanted - many.shape[1])))[:, :wanted]
        return torch.cat((x[:, : self.lone], many), dim=1)
