"""What linear attention makes of queries and keys: features whose product is the weight of a key for a query."""

from math import comb
from typing import Annotated, Any, Literal

from pydantic import Field

from archspec.errors import Refused, divisors
from archspec.kind import Count, Free, Kind, Slot, Width
from archspec.place import Place
from archspec.streams import Axis, Stream, single


class Hedgehog(Kind, kind="hedgehog", role="feature_map"):
    """``(exp(W x + b), exp(-W x - b))``, learned for each head, queries and keys apart; it starts at ``W = 1``.

    Trained towards the weights of a softmax, its weights become as spiky, and grow with the product of query and key as
    theirs do. ``over: features`` takes both parts' softmax over the features instead, which cannot overflow. Zhang et
    al. 2024, "The Hedgehog & the Porcupine: Expressive Linear Attentions with Softmax Mimicry", arXiv 2402.04347.
    """

    pointwise = True
    over: Literal["none", "features"] = Field("none", description="whether the exponentials are shares of their sum")
    bias: bool = False

    def output(self, x: Stream) -> Stream:
        return x.wide(2 * x.width)


class RandomFeatures(Kind):
    """Features of frequencies ``w`` drawn from a distribution that is learned, and with it the kernel.

    With kernel ``rbf`` they are ``cos(w x)`` and ``sin(w x)``: Gaussian frequencies of variance one give
    ``exp(-|q - k|^2 / 2)`` (Rahimi and Recht 2007). With ``softmax`` they are ``exp(w x - |x|^2 / 2)``, positive, and
    Gaussian frequencies give ``exp(q k')`` (Choromanski et al. 2020, arXiv 2009.14794). Queries and keys are divided by
    ``head_width ** 0.25`` before. The noise behind the frequencies follows from ``seed`` and stays.
    """

    pointwise = True
    count: Width = Field(description="frequencies of each head")
    kernel: Literal["rbf", "softmax"] = "rbf"
    seed: Annotated[Count, Free()] = Field(0, description="decides the noise")

    def output(self, x: Stream) -> Stream:
        return x.wide(self.count * (2 if self.kernel == "rbf" else 1))


class GaussianMixtureFeatures(RandomFeatures, kind="gaussian_mixture_features", role="feature_map"):
    """Features of frequencies from a mixture of Gaussians, ``w = mean + scale * noise``, whose parts learn their share.

    Each head has a mixture of its own. It starts at mean 0 and scale 1, the plain kernel. ``rbf``: ``cos(w x)`` and
    ``sin(w x)``, whose products estimate ``exp(-|q - k|^2 / 2)``; ``softmax``: ``exp(w x - |x|^2 / 2)``, for
    ``exp(q k')``; queries and keys are divided by ``head_width ** 0.25`` before. Chowdhury et al. 2021, "On Learning
    the Transformer Kernel", arXiv 2110.08323.
    """

    components: Width = Field(1, description="Gaussians of the mixture; each has as many of the frequencies")

    def output(self, x: Stream) -> Stream:
        if self.count % self.components:
            raise Refused("components", f"{self.count} frequencies cannot be shared by {self.components} Gaussians",
                          divisors(self.count))  # fmt: skip
        return super().output(x)


class GeneratedFeatures(RandomFeatures, kind="generated_features", role="feature_map"):
    """Features of frequencies that a body makes of noise, the same for all heads: an implicit distribution is learned.

    ``generator`` is given ``count`` tokens of ``noise`` features and gives as many of the head's width. Kernels are
    those of ``gaussian_mixture_features``. Chowdhury et al. 2021, "On Learning the Transformer Kernel", arXiv
    2110.08323.
    """

    example = "{kind: generated_features, count: 32, noise: 8, generator: {kind: mlp, hidden: 16, width: 32}}"
    noise: Width = Field(description="features of the noise of each frequency")
    generator: Annotated[Any, Slot(("body", "channel"))] = Field(None, description="makes frequencies of noise")

    def infer(self, at: Place) -> Stream:
        x = at.one()
        made = at.slot("generator", single(self.noise, "frequency", Axis("frequency", self.count))).output
        if (made.width, made.count) != (x.width, self.count):
            raise Refused("generator", f"gives {made}, not {self.count} frequencies of a head's {x.width} features",
                          f"its last node of width {x.width}")  # fmt: skip
        return self.output(x)


class PolynomialFeatures(Kind, kind="polynomial_features", role="feature_map"):
    """All products of at most ``degree`` features, so that ``f(q)'f(k) = a_0 + a_1 q'k + a_2 (q'k)^2 + ...``.

    ``a``, squares of learned weights, are ``1 / i!`` at first: the series of ``exp(q'k)``. Behrouz et al. 2025,
    "Atlas", arXiv 2505.23735.
    """

    pointwise = True
    degree: Annotated[int, Field(ge=1, le=4)] = Field(2, description="most features in a product")

    def output(self, x: Stream) -> Stream:
        return x.wide(comb(x.width + self.degree, self.degree))
