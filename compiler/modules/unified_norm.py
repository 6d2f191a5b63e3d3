"""A norm over the last batches (schema in archspec.kinds.unified_norm)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from archspec.kinds import unified_norm as kinds
from compiler.build import Make, weight
from compiler.modules.batch_norm import Statistics
from compiler.registry import Leaf, builds
from compiler.tokens import Tokens


@builds(kinds.UnifiedNorm)
class UnifiedNorm(nn.Module):
    def __init__(self, spec: kinds.UnifiedNorm, make: Make) -> None:
        super().__init__()
        self.norm = MeanSquares(spec, make.stream.width)

    def forward(self, x: Tokens) -> Tensor:
        out: Tensor = self.norm(x.features, x.valid)
        return out


class MeanSquares(Statistics):
    """Features ``[..., width]`` over the root of their mean square; ``valid [batch, tokens]`` tell who counts.

    Attributes:
        running_var: running mean of the mean squares.
        squares, products: of the last steps, the newest last; products are those of the gradient and the output.
    """

    squares: Tensor
    products: Tensor
    running_product: Tensor
    steps: Tensor

    def __init__(self, spec: kinds.UnifiedNorm, width: int) -> None:
        Leaf.__init__(self)
        self.spec_, self.eps, self.momentum = spec, spec.eps, spec.momentum
        self.weight, self.bias = weight(width), weight(width)
        self.initial = {"weight": 1.0, "bias": 0.0}
        for name, shape in {"running_var": (width,), "squares": (spec.window, width), "products": (spec.window, width),
                            "running_product": (width,)}.items():  # fmt: skip
            self.register_buffer(name, torch.empty(shape, device="meta"))
        self.register_buffer("steps", torch.empty((), dtype=torch.int64, device="meta"))

    def fill(self) -> None:
        for buffer in (self.squares, self.products, self.running_product, self.steps):
            buffer.zero_()
        self.running_var.fill_(1)

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        if not self.training:
            scale, shift = self.affine()
            return torch.addcmul(shift.to(x.dtype), x, scale.to(x.dtype))
        with torch.no_grad():
            square, unlike, early = self.mean_square(x, valid)
            scale = torch.rsqrt(square + self.eps).to(x.dtype)
        z: Tensor = Scaled.apply(x, scale, self, unlike, early)  # type: ignore[no-untyped-call]
        return z * self.weight + self.bias

    def mean_square(self, x: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """What features are divided by the root of, whether the batch is unlike others, and whether it is early."""
        spec = self.spec_
        rows = x.float().square().flatten(0, -2)
        if valid is None:
            now = rows.mean(0)
        else:
            each = rows.shape[0] // (x.shape[0] * x.shape[1])  # heads of a token
            share = valid.expand(x.shape[:2]).flatten().repeat_interleave(each).float()
            now = (rows * share[:, None]).sum(0) / share.sum()
        before = self.squares.sqrt()
        last = torch.cat((self.squares[1:], now[None]))
        geometric = last.log().mean(0).exp()
        self.steps += 1
        early = (self.steps <= spec.window) | (self.steps <= spec.warmup)
        far = last.mean(0) - geometric > spec.window * before.var(correction=min(1, before.numel() - 1))
        unlike = ~early & far.any() & spec.filter
        kept = torch.where(unlike, self.running_var, now)
        self.squares.copy_(torch.cat((last[:-1], kept[None])))
        square = now if spec.window == 1 else torch.where(early | unlike, now, geometric)
        self.running_var.lerp_(torch.where(unlike, self.running_var, square), self.momentum)
        return square, unlike, early

    def affine(self) -> tuple[Tensor, Tensor]:
        """What it multiplies features by in inference, and what it adds, in float64."""
        assert self.weight is not None and self.bias is not None
        return torch.rsqrt(self.running_var.double() + self.eps) * self.weight.double(), self.bias.double()


class Scaled(torch.autograd.Function):
    """``z = x scale``, where ``scale`` follows from x: the gradient is ``scale (g - z p)``, ``p`` a mean of ``g z``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, norm: MeanSquares, unlike: Tensor, early: Tensor) -> Tensor:
        z = x * scale
        ctx.save_for_backward(z, scale, unlike, early)
        ctx.norm = norm
        return z

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None, None]:  # type: ignore[override]
        z, scale, unlike, early = ctx.saved_tensors
        norm: MeanSquares = ctx.norm
        now = (g * z).mean(tuple(range(g.ndim - 1))).float()
        last = torch.cat((norm.products[1:], torch.where(unlike, norm.running_product, now)[None]))
        norm.products.copy_(last)
        mean = torch.where(early | unlike, now, last.mean(0))
        norm.running_product.lerp_(torch.where(unlike, norm.running_product, mean), norm.momentum)
        product = torch.where(unlike, now, norm.running_product)
        return scale * (g - z * product.to(g.dtype)), None, None, None, None
