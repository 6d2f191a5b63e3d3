"""A norm that is a fixed affine map once it is trained, and a way to come to it from another."""

from typing import Annotated, Any, ClassVar

from pydantic import Field

from archspec.errors import Refused
from archspec.kind import Free, Kind, Moves, Real, Slot
from archspec.place import Place
from archspec.streams import Stream


class BatchNorm(Kind, kind="batch_norm", role=("norm", "body")):
    """Batch normalisation: each feature to zero mean and unit variance over all tokens of a batch, then an affine map.

    Inference uses the running statistics of training, so that it is an affine map, which `compiler.fold` puts into
    the matrices beside it; padding has no part in them. Ioffe and Szegedy 2015, "Batch Normalization", arXiv
    1502.03167. With ``skip`` a learned multiple of the input is added, once at first: the re-parameterised one of Guo
    et al. 2024, "SLAB", arXiv 2405.11582.
    """

    incremental = True
    apart: ClassVar[bool] = False
    eps: Annotated[float, Field(gt=0)] = 1e-5
    momentum: Annotated[float, Free(), Field(gt=0, le=1)] = Field(
        0.1, description="share of a batch's statistics in the running ones"
    )
    affine: bool = Field(True, description="a learned scale and shift")
    skip: bool = Field(False, description="adds the input times a learned number")

    def output(self, x: Stream) -> Stream:
        return x


class Blend(Kind, kind="blend", role=("norm", "body")):
    """``factor * first(x) + (1 - factor) * second(x)``; a factor that moves replaces one by the other in training.

    From a layer norm to a batch norm: Guo et al. 2024, "SLAB: Efficient Transformers with Simplified Linear Attention
    and Progressive Re-parameterized Batch Normalization", arXiv 2405.11582. Where the factor stays at 0 or 1, only one
    of the two is computed.
    """

    pointwise = True
    example = "{kind: blend, factor: {bind: step, from: 1, to: 0}, first: layer_norm, second: batch_norm}"
    factor: Annotated[Real, Moves()] = Field(description="the weight of the first")
    first: Annotated[Any, Slot(("norm", "body"))]
    second: Annotated[Any, Slot(("norm", "body"))]

    def infer(self, at: Place) -> Stream:
        first, second = (at.slot(name, at.one()).output for name in ("first", "second"))
        if (first.width, first.spans) != (second.width, second.spans):
            raise Refused("second", f"gives {second}, the first {first}")
        return first
