"""Convolutions whose filters are as long as the sequence, and what such filters may be."""

from typing import Annotated, Any

from pydantic import Field

from archspec.errors import Refused
from archspec.kind import Free, Kept, Kind, Real, Slot, Width
from archspec.kinds.recurrence import in_order
from archspec.place import Place
from archspec.streams import Stream


class LongConvolution(Kind, kind="long_convolution", role=("mixer", "body")):
    """Each feature is filtered over the whole sequence, ``y[t] = sum_s f[t - s] x[s] + skip x[t]``, at cost n log n.

    Romero et al. 2021, "CKConv", arXiv 2102.02611; Poli et al. 2023, "Hyena Hierarchy", arXiv 2302.10866. Along a
    causal axis it reads the past; otherwise the tokens after have a filter of their own, whose first number is for the
    token itself too. It is computed as products of spectra.
    """

    incremental = True
    filter: Annotated[Any, Slot(("filter",))] = Field(
        "implicit_filter", description="what gives the numbers for each feature and lag"
    )
    skip: bool = Field(True, description="adds each feature times a learned number")

    def infer(self, at: Place) -> Stream:
        x = in_order(at.one())
        at.slot("filter", x)
        return x

    def keeps(self, x: Stream) -> tuple[Kept, ...]:
        return (Kept(x.width),)


class Filter(Kind):
    """Numbers ``[lags, features]``."""

    incremental = True

    def lags(self, x: Stream) -> int:
        """The longest lag and one more."""
        if x.most is None:
            raise Refused("", f"{x} has no largest length, so no longest lag", "say the length of the axis, or a limit")
        return x.most

    def output(self, x: Stream) -> Stream:
        self.lags(x)
        return x


class LagTable(Filter, kind="lag_table", role="filter"):
    """A learned number for each lag and feature."""

    std: Annotated[Real, Free()] | None = Field(None, description="of the first numbers; 1 / sqrt(lags) by default")


class ImplicitFilter(Filter, kind="implicit_filter", role="filter"):
    """A perceptron with sines between its layers maps a lag's place to the filter, which decays with the lag.

    Poli et al. 2023, "Hyena Hierarchy", arXiv 2302.10866: of a lag ``l`` of ``n`` it reads ``l / n`` and cosines and
    sines of ``bands`` whole numbers of turns from about none on; its sines have learned frequencies. A feature is
    multiplied by ``target^(r l / n)``, with ``r`` in even steps from ``1 / slow`` for the first to ``1 / fast``.
    """

    width: Width = Field(16, description="features of the perceptron")
    layers: Annotated[int, Field(ge=0, le=64)] = Field(2, description="matrices between its first and its last")
    bands: Width = 1
    frequency: Annotated[Real, Free()] = Field(10.0, description="at which the sines start")
    fast: Annotated[Real, Field(gt=0)] = 0.3
    slow: Annotated[Real, Field(gt=0)] = 1.5
    target: Annotated[Real, Field(gt=0, lt=1)] = 0.01
