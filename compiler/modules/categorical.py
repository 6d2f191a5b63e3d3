"""Categorical variables (schemas in archspec.kinds.categorical)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kinds import categorical as kinds
from compiler.build import Make, weight
from compiler.moving import moved
from compiler.registry import Leaf, builds
from compiler.tokens import Tokens

FAINT = 1e-20  # the match of what does not match


@builds(kinds.OneHot)
class OneHot(nn.Module):
    def __init__(self, spec: kinds.OneHot, make: Make) -> None:
        super().__init__()
        self.hot = Hot(make.node.output.width)

    def forward(self, x: Tokens) -> Tensor:
        out: Tensor = self.hot(x.features)
        return out


class Hot(Leaf):
    """``[…]`` to ``[…, width]``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, ids: Tensor) -> Tensor:
        return (ids.unsqueeze(-1) == torch.arange(self.width, device=ids.device)).to(torch.get_default_dtype())


@builds(kinds.OneHotPosition)
class OneHotPosition(nn.Module):
    def __init__(self, spec: kinds.OneHotPosition, make: Make) -> None:
        super().__init__()
        self.places, self.hot = Places(), Hot(spec.values)

    def forward(self, x: Tokens) -> Tensor:
        out: Tensor = self.hot(self.places(x.features))
        return out


class Places(Leaf):
    """``[batch, tokens]``: each token's index."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.arange(x.shape[1], device=x.device).expand(x.shape[0], -1)


class Choosing(Leaf):
    """Parameters whose softmax is a choice, at a temperature that may move."""

    def __init__(self, spec: kinds.Choosing) -> None:
        super().__init__()
        self.values, self.moving, self.temperature, self._noise = (
            spec.values, moved(spec.temperature), float(spec.temperature), spec.noise
        )  # fmt: skip

    def tau(self) -> float:
        """The present temperature."""
        return self.temperature if self.moving is None else self.moving.number

    @property
    def noise(self) -> float:
        """Factor on the noise of choices; there is none at temperature zero."""
        return self._noise if self.tau() else 0.0

    @noise.setter
    def noise(self, factor: float) -> None:
        self._noise = factor

    def choose(self, scores: Tensor, *, drawn: bool = True) -> Tensor:
        """Shares along the last dimension."""
        if not self.tau():
            return F.one_hot(scores.argmax(-1), scores.shape[-1]).to(scores.dtype)
        if drawn and self.training and self.noise:
            scores = scores - self.noise * torch.empty_like(scores).exponential_().log()
        return (scores / (self.tau() if self.moving is None else self.moving.value)).softmax(-1)


@builds(kinds.CategoricalAttention)
class CategoricalAttention(nn.Module):
    def __init__(self, spec: kinds.CategoricalAttention, make: Make) -> None:
        super().__init__()
        self.read = Read(spec, spec.variables(make.stream))

    def forward(self, x: Tokens) -> Tensor:
        out: Tensor = self.read(x.features, x.valid)
        return out


class Read(Choosing):
    """``[batch, tokens, variables * values]`` to ``[batch, tokens, heads * values]``."""

    def __init__(self, spec: kinds.CategoricalAttention, variables: int) -> None:
        super().__init__(spec)
        self.gates = weight(3, spec.heads, variables)  # of query, key and value
        self.predicate = weight(spec.heads, spec.values, spec.values)
        self.initial = {"gates": ("normal", variables**-0.5), "predicate": ("normal", spec.values**-0.5)}

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        variables = x.unflatten(-1, (-1, self.values))
        query, key, value = torch.einsum("whn,btnc->wbhtc", self.choose(self.gates), variables)
        sought = query @ self.choose(self.predicate)
        match = (sought @ key.mT).clamp(min=0) + FAINT
        scores = match.log() + nearness(x.shape[1], x)
        if valid is not None:
            scores = scores.masked_fill(~valid[:, None, None], torch.finfo(scores.dtype).min)
        return (self.choose(scores, drawn=False) @ value).transpose(1, 2).flatten(2)


def nearness(tokens: int, like: Tensor) -> Tensor:
    """``[tokens, tokens]``: from 0 for neighbours down to -1, a little less for the later of two, -2 for oneself."""
    index = torch.arange(tokens, device=like.device)
    distance = index - index[:, None]
    near = (1 - distance.abs() - 0.5 * (distance > 0)) / max(1, tokens)
    return near.to(like.dtype).fill_diagonal_(-2)


@builds(kinds.CategoricalMlp)
class CategoricalMlp(nn.Module):
    def __init__(self, spec: kinds.CategoricalMlp, make: Make) -> None:
        super().__init__()
        self.table = Table(spec, spec.variables(make.stream))

    def forward(self, x: Tokens) -> Tensor:
        out: Tensor = self.table(x.features)
        return out


class Table(Choosing):
    """``[…, variables * values]`` to ``[…, count * values]``."""

    def __init__(self, spec: kinds.CategoricalMlp, variables: int) -> None:
        super().__init__(spec)
        self.gates = weight(spec.count, spec.reads, variables)
        self.up, self.up_bias = (
            weight(spec.count, spec.reads * spec.values, spec.hidden),
            weight(spec.count, spec.hidden),
        )
        self.down = weight(spec.count, spec.hidden, spec.values)
        self.down_bias = weight(spec.count, spec.values)
        spread = {"up": (spec.reads * spec.values) ** -0.5, "down": spec.hidden**-0.5, "gates": variables**-0.5}
        self.initial = {name: ("normal", std) for name, std in spread.items()} | {"up_bias": 0.0, "down_bias": 0.0}

    def scores(self, read: Tensor) -> Tensor:
        """Of the values that come out, ``[…, count, values]``, from what is read, ``[…, count, reads * values]``."""
        inner = F.relu(torch.einsum("...ci,cih->...ch", read, self.up) + self.up_bias)
        return torch.einsum("...ch,chv->...cv", inner, self.down) + self.down_bias

    def forward(self, x: Tensor) -> Tensor:
        variables = x.unflatten(-1, (-1, self.values))
        read = torch.einsum("crn,...nv->...crv", self.choose(self.gates), variables).flatten(-2)
        return self.choose(self.scores(read)).flatten(-2)
