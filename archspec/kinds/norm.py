"""Norms: what keeps the scale of a token's features."""

from typing import Annotated

from pydantic import Field

from archspec.errors import Refused, divisors
from archspec.kind import Kind, Real, Width
from archspec.streams import Stream

GROUP = "features that are normalised together, as those of a head; all by default"


class Grouped(Kind):
    """A norm whose statistics are those of a group of features; the affine map has numbers for each feature."""

    pointwise = True
    group_size: Width | None = Field(None, description=GROUP)

    def output(self, x: Stream) -> Stream:
        if self.group_size is not None and x.width % self.group_size:
            raise Refused("group_size", f"width {x.width} does not divide into groups of {self.group_size}",
                          divisors(x.width))  # fmt: skip
        return x


class LayerNorm(Grouped, kind="layer_norm", role=("norm", "body")):
    """Layer normalisation: each token's features to zero mean and unit variance, then an affine map.

    Ba, Kiros and Hinton 2016, "Layer Normalization", arXiv 1607.06450.
    """

    rare = ("offset",)
    eps: Annotated[float, Field(gt=0)] = 1e-5
    affine: bool = Field(True, description="a learned scale and shift")
    bias: bool = Field(True, description="the learned shift, where affine")
    offset: Real = Field(0.0, description="added to the learned scale (1 where weights are stored around zero)")


class RmsNorm(Grouped, kind="rms_norm", role=("norm", "body")):
    """Root-mean-square normalisation: each token's features to unit mean square, then a learned scale.

    Zhang and Sennrich 2019, "Root Mean Square Layer Normalization", arXiv 1910.07467.
    """

    eps: Annotated[float, Field(gt=0)] = 1e-6
    affine: bool = Field(True, description="a learned scale")
    offset: Real = Field(0.0, description="added to the learned scale (1 where weights are stored around zero)")
