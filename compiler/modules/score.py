"""Maps of queries and keys to features whose product is the score (schemas in archspec.kinds.score)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kinds import score as kinds
from compiler.build import Make, weight
from compiler.modules.rope import Rope
from compiler.registry import builds


class Paired(nn.Module):
    """A map of ``[batch, tokens, heads, width]`` whose features are the pairs that rotary positions turn together."""

    def __init__(self, spec: kinds.Paired, make: Make) -> None:
        super().__init__()
        self.width = make.stream.width

    def fits(self, heads: int, kv_heads: int, position: nn.Module | None) -> None:
        """Takes the numbers of heads, and which features the positions turn together."""
        rope = position if isinstance(position, Rope) else None
        self.turned = self.width if rope is None else rope.rotated
        self.beside = rope is not None and rope.spec_.layout == "pairs"

    def pairs(self, x: Tensor) -> Tensor:
        """``[…, 2, width / 2]``: the first and the second features of all pairs, those that are not turned last."""
        turned, rest = x[..., : self.turned], self.width - self.turned
        both = turned.unflatten(-1, (-1, 2)).transpose(-1, -2) if self.beside else turned.unflatten(-1, (2, -1))
        return both if not rest else torch.cat((both, x[..., self.turned :].unflatten(-1, (2, rest // 2))), dim=-1)

    def single(self, both: Tensor) -> Tensor:
        """The features of a head from those of `pairs`."""
        turned, rest = both[..., : self.turned // 2], both[..., self.turned // 2 :]
        turned = (turned.transpose(-1, -2) if self.beside else turned).flatten(-2)
        return turned if self.turned == self.width else torch.cat((turned, rest.flatten(-2)), dim=-1)


@builds(kinds.Collinear)
class Collinear(Paired):
    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        square = self.pairs(q).square().sum(-2, keepdim=True)
        line = F.relu(self.pairs(k).mean(-2, keepdim=True))
        return self.single(F.pad(square, (0, 0, 0, 1))), self.single(F.pad(line, (0, 0, 0, 1)))


@builds(kinds.Polar)
class Polar(Paired):
    """The angle of each pair of features, multiplied; queries are shifted besides."""

    def fits(self, heads: int, kv_heads: int, position: nn.Module | None) -> None:
        super().fits(heads, kv_heads, position)
        self.groups = heads // kv_heads
        self.gain, self.shift = weight(kv_heads, self.width // 2), weight(heads, self.width // 2)
        self.initial = {"gain": 1.0, "shift": 0.0}

    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        gain = self.gain if self.groups == 1 else self.gain.repeat_interleave(self.groups, dim=0)
        return self.turn(q, gain, self.shift), self.turn(k, self.gain, None)

    def turn(self, x: Tensor, gain: Tensor, shift: Tensor | None) -> Tensor:
        """Queries or keys of the same magnitudes at other angles."""
        both = self.pairs(x).float()
        square = both.square().sum(-2)
        none = (square == 0).to(square.dtype)  # has no angle, nor a gradient
        angle = torch.atan2(both[..., 1, :], both[..., 0, :] + none) * gain.float()
        angle = angle if shift is None else angle + shift.float()
        size = (square + none).sqrt() * (1 - none)
        return self.single(torch.stack((size * angle.cos(), size * angle.sin()), dim=-2)).to(x.dtype)
