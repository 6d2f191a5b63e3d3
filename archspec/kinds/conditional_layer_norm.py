"""Conditional layer normalisation: a norm whose scale and shift are read from another stream."""

from typing import Annotated, Any

from pydantic import Field

from archspec.errors import Refused
from archspec.kind import Matrix, Slot, Weighted
from archspec.place import Place
from archspec.streams import Stream


class ConditionalLayerNorm(Weighted, kind="conditional_layer_norm", role=("norm", "body")):
    """Layer normalisation whose scale and shift are linear in a condition, ``(1 + scale(c)) normalise(x) + shift(c)``.

    Chen et al. 2021, "AdaSpeech: Adaptive Text to Speech for Custom Voice", arXiv 2103.00993; Perez et al. 2017, "FiLM:
    Visual Reasoning with a General Conditioning Layer", arXiv 1709.07871. The condition is a vector of the sample, such
    as a speaker's, or has a token for each that is normed.
    """

    incremental = True
    condition: Annotated[Any, Slot(("mask",), stream=True)] = Field(
        description="the stream that scale and shift are read from"
    )
    eps: Annotated[float, Field(gt=0)] = 1e-5
    bias: bool = Field(True, description="biases on both maps")

    def infer(self, at: Place) -> Stream:
        x = at.one()
        read = at.stream("condition")
        if read is None:
            raise Refused(
                "condition", f"no stream is called {at.raw('condition')!r}", "condition: a vector of the sample"
            )
        if read.content != "features" or (read.spans and read.count != x.count):
            raise Refused("condition", f"{at.raw('condition')} is {read}; tokens are {x}", "pool it to one vector")
        at.own({role: Matrix(read.width, x.width, self.bias) for role in ("scale", "shift")})
        return x
