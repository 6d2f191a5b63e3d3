"""Norms: what keeps the scale of a token's features."""

from typing import Annotated

from pydantic import Field

from archspec.kind import Kind, Real
from archspec.streams import Stream


class LayerNorm(Kind, kind="layer_norm", role=("norm", "body")):
    """Layer normalisation: each token's features to zero mean and unit variance, then an affine map.

    Ba, Kiros and Hinton 2016, "Layer Normalization", arXiv 1607.06450.
    """

    pointwise = True
    eps: Annotated[float, Field(gt=0)] = 1e-5
    affine: bool = Field(True, description="a learned scale and shift")
    bias: bool = Field(True, description="the learned shift, where affine")

    def output(self, x: Stream) -> Stream:
        return x


class RmsNorm(Kind, kind="rms_norm", role=("norm", "body")):
    """Root-mean-square normalisation: each token's features to unit mean square, then a learned scale.

    Zhang and Sennrich 2019, "Root Mean Square Layer Normalization", arXiv 1910.07467.
    """

    pointwise = True
    eps: Annotated[float, Field(gt=0)] = 1e-6
    affine: bool = Field(True, description="a learned scale")
    offset: Real = Field(0.0, description="added to the learned scale (1 where weights are stored around zero)")

    def output(self, x: Stream) -> Stream:
        return x
