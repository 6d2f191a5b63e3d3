"""A norm over batches that is steady against batches unlike the others."""

from typing import Annotated, ClassVar

from pydantic import Field

from archspec.kind import Free, Kind, Width
from archspec.streams import Stream


class UnifiedNorm(Kind, kind="unified_norm", role=("norm", "body")):
    """Each feature to unit mean square over the tokens of the last batches, then an affine map.

    Training divides by the root of the geometric mean of the mean squares of the last ``window`` batches, and smooths
    what the gradient needs of them alike. A batch that differs too much from those before it (the arithmetic mean
    exceeds the geometric one by more than ``window`` times the variance of the roots) is normalised by itself and
    leaves no trace in what inference uses: a running mean, so that it is an affine map, which `compiler.fold` puts into
    the matrices beside it; padding has no part in it. Yang et al. 2022, "Unified Normalization for Accelerating and
    Stabilizing Transformers", arXiv 2208.01313.
    """

    incremental = True
    apart: ClassVar[bool] = False
    eps: Annotated[float, Field(gt=0)] = 1e-5
    momentum: Annotated[float, Free(), Field(gt=0, le=1)] = Field(
        0.1, description="share of a step's statistics in the running ones"
    )
    window: Width = Field(4, description="batches whose statistics are averaged")
    warmup: Annotated[int, Free(), Field(ge=0)] = Field(
        4000, description="steps in which a batch is normalised by itself and none is left out"
    )
    filter: Annotated[bool, Free()] = Field(True, description="whether unlike batches are left out")

    def output(self, x: Stream) -> Stream:
        return x
