"""Key heads that are read by unlike numbers of query heads (schemas in archspec.kinds.sharing)."""

from __future__ import annotations

import torch
from torch import Tensor

from archspec.kinds import sharing as kinds
from compiler.build import Make
from compiler.registry import Leaf, builds


def allocation(shares: Tensor, heads: int) -> Tensor:
    """``[key heads]`` whole numbers that sum to ``heads``, in proportion to shares; equal ones if all are zero."""
    shares = torch.where(shares.sum() > 0, shares, torch.ones_like(shares))
    exact = shares / shares.sum() * heads
    whole = exact.floor()
    order = (exact - whole).argsort(descending=True, stable=True).argsort()
    return (whole + (order < heads - whole.sum())).long()


class Sharing(Leaf):
    """Keys and values ``[batch, tokens, key heads, width]``, each as often as query heads read it."""

    def __init__(self, spec: kinds.Sharing, make: Make) -> None:
        super().__init__()

    def fits(self, heads: int, kv_heads: int) -> None:
        """Takes the numbers of heads."""
        self.heads, self.kv_heads = heads, kv_heads

    def forward(self, k: Tensor, v: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        index = self.index(k, valid)
        return k.index_select(2, index), v.index_select(2, index)

    def index(self, k: Tensor, valid: Tensor | None) -> Tensor:
        """``[heads]``: the key head of each query head."""
        raise NotImplementedError

    @torch.no_grad()
    def norms(self, k: Tensor, valid: Tensor | None) -> Tensor:
        """``[key heads]``: norms over a sample's tokens and features, summed over samples."""
        squares = k.float().square().sum(-1)
        if valid is not None:
            squares = squares * valid.repeat(k.shape[0] // valid.shape[0], 1)[..., None]
        return squares.sum(1).sqrt().sum(0)

    def runs(self, counts: Tensor) -> Tensor:
        """``[heads]`` from how many of them read each key head."""
        heads = torch.arange(self.heads, device=counts.device)
        return torch.searchsorted(counts.cumsum(0), heads, right=True)


@builds(kinds.ByKeyNorm)
class ByKeyNorm(Sharing):
    def index(self, k: Tensor, valid: Tensor | None) -> Tensor:
        norms = self.norms(k, valid)
        above = norms - norms.min()
        alike = above.max() <= 1e-5 * norms.max()  # they differ by rounding
        return self.runs(allocation(torch.where(alike, torch.zeros_like(above), above), self.heads))


@builds(kinds.ByTrackedKeyNorm)
class ByTrackedKeyNorm(Sharing):
    """Numbers that training keeps.

    Attributes:
        running: means of norms.
        passes: of training.
        read: the key head of each query head.
    """

    running: Tensor
    passes: Tensor
    read: Tensor

    def __init__(self, spec: kinds.ByTrackedKeyNorm, make: Make) -> None:
        super().__init__(spec, make)
        self.window, self.momentum = spec.window, spec.momentum

    def fits(self, heads: int, kv_heads: int) -> None:
        super().fits(heads, kv_heads)
        self.register_buffer("running", torch.empty(kv_heads, device="meta"))
        for name, size in (("passes", 1), ("read", heads)):
            self.register_buffer(name, torch.empty(size, dtype=torch.int64, device="meta"))

    def fill(self) -> None:
        self.running.zero_()
        self.passes.zero_()
        self.read.copy_(self.runs(allocation(self.running, self.heads)))

    def index(self, k: Tensor, valid: Tensor | None) -> Tensor:
        if self.training:
            with torch.no_grad():
                norms = self.norms(k, valid).to(self.running.dtype)
                self.running.copy_(torch.where(self.passes == 0, norms, self.running.lerp(norms, self.momentum)))
                renewed = self.runs(allocation(self.running.clamp(min=0), self.heads))
                self.read.copy_(torch.where(self.passes % self.window == 0, renewed, self.read))
                self.passes.add_(1)
        return self.read.clone()
