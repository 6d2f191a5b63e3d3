"""Fewer features of each token."""

from typing import Literal

from archspec.errors import Refused, divisors
from archspec.kind import Kind, Width
from archspec.streams import Stream


class PoolFeatures(Kind, kind="pool_features", role=("channel", "body")):
    """Each ``size`` neighbouring features of a token become one, their largest or their mean.

    Of activations: Goodfellow et al. 2013, "Maxout Networks", arXiv 1302.4389; of the points of a patch of a series, a
    coarser series.
    """

    pointwise = True
    size: Width = 2
    how: Literal["max", "mean"] = "max"

    def output(self, x: Stream) -> Stream:
        if x.width % self.size:
            raise Refused("size", f"{x.width} features do not divide into groups of {self.size}", divisors(x.width))
        return x.wide(x.width // self.size)
