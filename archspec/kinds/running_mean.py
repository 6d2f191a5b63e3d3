"""The mean of what came so far."""

from archspec.errors import Refused
from archspec.kind import Kept, Kind
from archspec.kinds.recurrence import in_order
from archspec.streams import Stream


class RunningMean(Kind, kind="running_mean", role=("mixer", "body")):
    """Each token becomes the mean of all tokens up to it: an average context.

    Hilsenbek 2024, "Breaking the Attention Bottleneck", arXiv 2406.10906; Zhang, Xiong and Su 2018, "Accelerating
    Neural Transformer via an Average Attention Network", arXiv 1805.00631.
    """

    incremental = True

    def output(self, x: Stream) -> Stream:
        if not x.causal:
            raise Refused("", f"there is no up to a token in {x}, which is not causal", "kind: pool")
        return in_order(x)

    def keeps(self, x: Stream) -> tuple[Kept, ...]:
        return (Kept(x.width, per="sequence"),)
