"""Softmax-free attention (schema in archspec.kinds.softmax_free_attention)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from archspec.kinds import softmax_free_attention as kinds
from compiler.build import Make, main, project
from compiler.modules.convolution import GridConvolution
from compiler.modules.recurrence import precise
from compiler.registry import Leaf, builds
from compiler.tokens import Tokens


@builds(kinds.SoftmaxFreeAttention)
class SoftmaxFreeAttention(nn.Module):
    def __init__(self, spec: kinds.SoftmaxFreeAttention, make: Make) -> None:
        super().__init__()
        self.heads, self.width = spec.heads, spec.inner(make.stream) // spec.heads
        self.query, self.value, self.out = (make.linear(role) for role in ("query", "value", "out"))
        self.landmarks = make.body("landmarks") if make.has("landmarks") else None
        self.filter = None
        if spec.convolution is not None:
            self.filter = GridConvolution(make.stream.wide(spec.heads), size=spec.convolution, bias=False)
        self.attend = GaussianAttend(spec)

    def forward(self, x: Tokens, outer: Mapping[str, Tokens] | None = None) -> Tensor:
        q, v = (self.split(project(matrix, x.features, x)) for matrix in (self.query, self.value))
        q, marks = q * self.width**-0.25, None
        if self.landmarks is not None:
            each = Tokens(q.flatten(0, 1), x.stream.wide(self.width))
            marks = main(self.landmarks, each, outer={}).features.unflatten(0, (-1, self.heads))
        y = self.attend(q, v, marks)
        if self.filter is not None:  # one filter for all features of a head
            heard = self.filter(v.permute(0, 3, 2, 1).flatten(0, 1))
            y = y + heard.unflatten(0, (-1, self.width)).permute(0, 3, 2, 1)
        return project(self.out, y.transpose(1, 2).flatten(2), x)

    def split(self, x: Tensor) -> Tensor:
        """``[batch, tokens, inner]`` as ``[batch, heads, tokens, width]``."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class GaussianAttend(Leaf):
    """Reads values ``[batch, heads, tokens, width]`` by queries that are keys, through landmarks if there are any."""

    def __init__(self, spec: kinds.SoftmaxFreeAttention) -> None:
        super().__init__()
        self.iterations, self.ridge, self.normalize = spec.iterations, spec.ridge, spec.normalize

    def forward(self, q: Tensor, v: Tensor, marks: Tensor | None) -> Tensor:
        dtype, q, v = v.dtype, precise(q), precise(v)
        if marks is None:
            return (gaussian(q, q) @ v).to(dtype)
        marks = precise(marks)
        to, among = gaussian(q, marks), gaussian(marks, marks)
        middle = inverse(among, self.iterations, self.ridge)
        if self.normalize:
            root = among.sum(-1, keepdim=True).rsqrt()
            middle = root * middle * root.mT
        return (to @ (middle @ (to.mT @ v))).to(dtype)


def gaussian(a: Tensor, b: Tensor) -> Tensor:
    """``exp(-|a - b|^2 / 2)`` of all pairs of rows."""
    lengths = a.square().sum(-1)[..., :, None] + b.square().sum(-1)[..., None, :]
    return (a @ b.mT - lengths / 2).exp()


def inverse(g: Tensor, iterations: int, ridge: float) -> Tensor:
    """The inverse of a symmetric kernel with a ridge, by Newton's steps from ``g 1.8 / (largest row sum)^2``.

    The last step reads the one before as a constant, so that its gradient is that of an inverse, ``-z' grad z'``, and
    no step is kept for it.
    """
    with torch.no_grad():
        z = g * (1.8 / g.sum(-1).amax(-1).square())[..., None, None]
    g = g + ridge * torch.eye(g.shape[-1], dtype=g.dtype, device=g.device)
    with torch.no_grad():
        for _ in range(iterations - 1):
            z = 2 * z - z @ g @ z
    return 2 * z - z @ g @ z
