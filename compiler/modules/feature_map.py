"""Feature maps of linear attention (schemas in archspec.kinds.feature_map).

Each maps queries and keys ``[batch, tokens, heads, width]``; what computes in single precision is a leaf.
"""

from __future__ import annotations

from collections import Counter
from itertools import combinations_with_replacement
from math import factorial, prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kinds import feature_map as kinds
from archspec.streams import Axis, single
from compiler.build import Make, main, weight
from compiler.modules.position import table
from compiler.modules.recurrence import precise
from compiler.registry import Leaf, builds
from compiler.tokens import Tokens


@builds(kinds.Hedgehog)
class Hedgehog(nn.Module):
    def __init__(self, spec: kinds.Hedgehog, make: Make) -> None:
        super().__init__()
        self.width, self.biased = make.stream.width, spec.bias
        self.both = Exponentials(shares=spec.over == "features")

    def fits(self, heads: int) -> None:
        """Weights ``[heads, outputs, inputs]``."""
        self.query, self.key = (weight(heads, self.width, self.width) for _ in range(2))
        one = torch.eye(self.width).tolist()
        self.initial: dict[str, object] = {"query": one, "key": one}
        if self.biased:
            self.query_bias, self.key_bias = weight(heads, self.width), weight(heads, self.width)
            self.initial |= {"query_bias": 0.0, "key_bias": 0.0}

    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        q, k = torch.einsum("bthi,hoi->btho", q, self.query), torch.einsum("bthi,hoi->btho", k, self.key)
        if self.biased:
            q, k = q + self.query_bias, k + self.key_bias
        return self.both(q), self.both(k)


class Exponentials(Leaf):
    """The exponentials of numbers and of their negatives; as shares, each over the sum of its half."""

    def __init__(self, *, shares: bool) -> None:
        super().__init__()
        self.shares = shares

    def forward(self, x: Tensor) -> Tensor:
        x = precise(x)
        return torch.cat((x.softmax(-1), (-x).softmax(-1)) if self.shares else (x.exp(), (-x).exp()), dim=-1)


class RandomFeatures(nn.Module):
    """Features of the frequencies that a subclass makes of its noise."""

    def __init__(self, spec: kinds.RandomFeatures, make: Make, noise: int) -> None:
        super().__init__()
        self.width = make.stream.width
        self.noise = Noise(spec.count, noise, spec.seed)
        self.waves = Waves(positive=spec.kernel == "softmax")

    def fits(self, heads: int) -> None:
        """Takes the number of heads."""
        self.heads = heads

    def frequencies(self, noise: Tensor) -> tuple[Tensor, Tensor | float]:
        """``[heads, count, width]``, and the factor on the features of each, a number or ``[heads, count]``."""
        raise NotImplementedError

    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        frequencies, factor = self.frequencies(self.noise(q))
        q, k = q * self.width**-0.25, k * self.width**-0.25
        return self.waves(q, frequencies, factor), self.waves(k, frequencies, factor)


class Noise(Leaf):
    """Normal numbers ``[count, width]`` that follow from the seed, of the precision of what they are for."""

    numbers: Tensor

    def __init__(self, count: int, width: int, seed: int) -> None:
        super().__init__()
        self.seed = seed
        table(self, "numbers", count, width)

    def fill(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)  # on the CPU: the same numbers on every device
        self.numbers.copy_(torch.randn(self.numbers.shape, generator=generator))

    def forward(self, like: Tensor) -> Tensor:
        return self.numbers.to(like.dtype)


class Waves(Leaf):
    """Features of ``x`` at frequencies: cosines and sines, or exponentials."""

    def __init__(self, *, positive: bool) -> None:
        super().__init__()
        self.positive = positive

    def forward(self, x: Tensor, frequencies: Tensor, factor: Tensor | float) -> Tensor:
        angles = precise(torch.einsum("bthi,hmi->bthm", x, frequencies))
        if self.positive:
            return (angles - precise(x).square().sum(-1, keepdim=True) / 2).exp() * factor
        return torch.cat((angles.cos() * factor, angles.sin() * factor), dim=-1)


@builds(kinds.GaussianMixtureFeatures)
class GaussianMixtureFeatures(RandomFeatures):
    def __init__(self, spec: kinds.GaussianMixtureFeatures, make: Make) -> None:
        super().__init__(spec, make, make.stream.width)
        self.components, self.each = spec.components, spec.count // spec.components

    def fits(self, heads: int) -> None:
        """The mean and the scale of each Gaussian, and the logits of their shares."""
        self.mean, self.scale = (weight(heads, self.components, self.width) for _ in range(2))
        self.share = weight(heads, self.components) if self.components > 1 else None
        self.initial = {"mean": 0.0, "scale": 1.0, "share": 0.0}

    def frequencies(self, noise: Tensor) -> tuple[Tensor, Tensor | float]:
        noise = noise.unflatten(0, (self.components, self.each))
        found = (self.mean[:, :, None] + self.scale[:, :, None] * noise).flatten(1, 2)
        if self.share is None:
            return found, self.each**-0.5
        return found, (self.share.softmax(-1) / self.each).sqrt().repeat_interleave(self.each, dim=1)


@builds(kinds.GeneratedFeatures)
class GeneratedFeatures(RandomFeatures):
    def __init__(self, spec: kinds.GeneratedFeatures, make: Make) -> None:
        super().__init__(spec, make, spec.noise)
        self.count, self.stream = spec.count, single(spec.noise, "frequency", Axis("frequency", spec.count))
        self.generator = make.body("generator")

    def frequencies(self, noise: Tensor) -> tuple[Tensor, Tensor | float]:
        made = main(self.generator, Tokens(noise[None], self.stream), outer={}).features
        return made.expand(self.heads, -1, -1), self.count**-0.5


@builds(kinds.PolynomialFeatures)
class PolynomialFeatures(nn.Module):
    def __init__(self, spec: kinds.PolynomialFeatures, make: Make) -> None:
        super().__init__()
        self.products = Products(make.stream.width, spec.degree)
        self.weight = weight(spec.degree + 1)
        self.initial = {"weight": [factorial(degree) ** -0.5 for degree in range(spec.degree + 1)]}

    def fits(self, heads: int) -> None:
        """One set of weights for all heads."""

    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return self.products(q, self.weight), self.products(k, self.weight)


class Products(Leaf):
    """Products of features, those of one degree weighed alike; each stands for all orders of its factors."""

    places: Tensor
    orders: Tensor

    def __init__(self, width: int, degree: int) -> None:
        super().__init__()
        self.found = list(combinations_with_replacement(range(width + 1), degree))  # 0 is a factor of one
        table(self, "places", degree, len(self.found), dtype=torch.int64)
        table(self, "orders", len(self.found))

    def fill(self) -> None:
        self.places.copy_(torch.tensor(self.found).T)
        counts = [Counter(filter(None, product)) for product in self.found]
        orders = [factorial(c.total()) / prod(map(factorial, c.values())) for c in counts]
        self.orders.copy_(torch.tensor(orders).sqrt())

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        factors = F.pad(x, (1, 0), value=1.0)
        scale = self.orders.to(x.dtype) * weights[(self.places > 0).sum(0)]
        for places in self.places:
            scale = scale * factors.index_select(-1, places)
        return scale
