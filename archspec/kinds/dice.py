"""A function of each feature that adapts to what the feature has been like."""

from typing import Annotated

from pydantic import Field

from archspec.kind import Free, Kind, Real
from archspec.streams import Stream


class Dice(Kind, kind="dice", role=("channel", "body")):
    """A gate between a feature and a learned multiple of it, ``p x + (1 - p) alpha x`` with ``p`` a sigmoid of the
    feature normalised over the batch.

    So the bend of a PReLU becomes smooth and lies where the feature has its mean: Zhou et al. 2017, "Deep Interest
    Network for Click-Through Rate Prediction", arXiv 1706.06978. Inference uses running statistics; padding has no part
    in them.
    """

    incremental = True
    apart = False
    eps: Annotated[float, Field(gt=0)] = 1e-8
    momentum: Annotated[float, Free(), Field(gt=0, le=1)] = Field(
        0.1, description="share of a batch's statistics in the running ones"
    )
    alpha: Annotated[Real, Free()] = Field(0.0, description="the multiple at first")

    def output(self, x: Stream) -> Stream:
        return x
