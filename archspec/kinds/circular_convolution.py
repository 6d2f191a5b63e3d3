"""Convolutions around a circle of tokens, whose filters may be made of the tokens."""

from typing import Annotated, Any

from pydantic import Field

from archspec.errors import Refused
from archspec.kind import Kind, Slot, Width
from archspec.kinds.convolution import around, convolvable
from archspec.kinds.recurrence import in_order
from archspec.place import Place
from archspec.streams import Stream


class CircularConvolution(Kind, kind="circular_convolution", role=("mixer", "body")):
    """Each feature is filtered around the circle of all tokens, ``y[t] = sum_s f[(t - s) mod n] x[s] + skip x[t]``.

    Karami and Ghodsi 2024, "Orchid: Flexible and Data-Dependent Convolution for Sequence Modeling", arXiv 2402.18508.
    A ``condition`` adds to the filter, frequency by frequency, one that it makes of the tokens, or of those of a second
    stream, so that tokens that go around take the output along. It is computed as products of spectra, at cost n log n.
    Every output reads all tokens, so no axis may be causal.
    """

    arity = (1, 2)
    filter: Annotated[Any, Slot(("filter",))] = Field(
        "implicit_filter", description="what gives the numbers for each feature and lag that are the same for all"
    )
    condition: Annotated[Any, Slot(("condition",))] = Field(None, description="what makes a filter of the tokens")
    skip: bool = Field(True, description="adds each feature times a learned number")

    def infer(self, at: Place) -> Stream:
        x, source = around(in_order(at.inputs[0])), at.inputs[-1]
        if (source.spans, source.width) != (x.spans, x.width):
            raise Refused("from", f"the filter is made of {source}, the tokens are {x}", "two streams of one type")
        at.slot("filter", x)
        if at.has("condition"):
            at.slot("condition", source)
        elif len(at.inputs) > 1:
            raise Refused("condition", "a second stream, but nothing that makes a filter of it", "spectral_magnitude")
        return x


class Condition(Kind):
    """Tokens to the spectrum of a filter for each sample, by local convolutions that are each normalised.

    The convolution along the tokens goes around; that along the frequencies, which mixes neighbouring ones and gives a
    real and an imaginary part, sees zeros beyond the ends.
    """

    size: Width = Field(3, description="taps of the convolutions along tokens and along frequencies")

    def output(self, x: Stream) -> Stream:
        convolvable(x, self.size)
        return x


class SpectralMagnitude(Condition, kind="spectral_magnitude", role="condition"):
    """``local(|F(local(x))|)``: the magnitudes of frequencies, which do not change where tokens go around.

    Type I of Karami and Ghodsi 2024, "Orchid", arXiv 2402.18508.
    """


class SpectralCorrelation(Condition, kind="spectral_correlation", role="condition"):
    """``local(conj(F(local_1(x))) F(local_2(x)))``: what two filtered forms of the tokens have in common at each lag.

    Type II of Karami and Ghodsi 2024, "Orchid", arXiv 2402.18508, without the nonlinearity, as their
    ablation found best.
    """
