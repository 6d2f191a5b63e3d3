"""What acts only in training, and gains on a branch."""

from typing import Annotated

from pydantic import Field

from archspec.kind import Free, Kind, Moves, Rate, Real
from archspec.streams import Stream


class Dropout(Kind, kind="dropout"):
    """Sets features to zero at random in training.

    Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting".
    """

    pointwise = True
    rate: Annotated[Rate, Free(), Moves()] = 0.1

    def output(self, x: Stream) -> Stream:
        return x


class DropPath(Kind, kind="drop_path"):
    """Drops a whole sample of a branch at random in training (stochastic depth).

    Huang et al. 2016, "Deep Networks with Stochastic Depth", arXiv 1603.09382.
    """

    rate: Annotated[Rate, Free(), Moves()] = 0.1

    def output(self, x: Stream) -> Stream:
        return x


class LayerScale(Kind, kind="layer_scale", role=("scale", "body")):
    """A learned gain for each feature, small at first.

    Touvron et al. 2021, "Going deeper with Image Transformers", arXiv 2103.17239.
    """

    pointwise = True
    rare = ("single",)
    init: Annotated[Real, Free()] = 1e-5
    single: bool = Field(False, description="one gain for all features")

    def output(self, x: Stream) -> Stream:
        return x


class Identity(Kind, kind="identity"):
    """Hands its input on."""

    pointwise = True

    def output(self, x: Stream) -> Stream:
        return x
