"""Which key head each query head reads, where that is not as many for each."""

from typing import Annotated, ClassVar

from pydantic import Field

from archspec.errors import Refused
from archspec.kind import Free, Kind, Width
from archspec.streams import Stream


class Sharing(Kind):
    """A rule by which query heads, in their order, are given to key heads."""

    def output(self, x: Stream) -> Stream:
        """Accepts the stream of keys."""
        if x.causal:
            raise Refused("", "keys that are still to come would change who reads what", "leave out sharing")
        return x


class ByKeyNorm(Sharing, kind="by_key_norm", role="sharing"):
    """Key heads are read by numbers of query heads in proportion to how far their norm is above the smallest one.

    In each pass, over all samples; what is left over after whole numbers goes to the largest remainders. Key heads of
    one norm are read by equally many. "KDGQA" of Khan et al. 2024, "Beyond Uniform Query Distribution: Key-Driven
    Grouped Query Attention", arXiv 2408.08454.
    """

    apart: ClassVar[bool] = False
    exempt: ClassVar[dict[str, str]] = {"batch": "norms are those of all samples"}


class ByTrackedKeyNorm(Sharing, kind="by_tracked_key_norm", role="sharing"):
    """Key heads are read by numbers of query heads in proportion to running means of their norms.

    Training renews the numbers every ``window`` passes; inference leaves them as they are. "DGQA" of Khan et al. 2024,
    arXiv 2408.08454.
    """

    window: Annotated[Width, Free()] = Field(300, description="passes of training between changes")
    momentum: Annotated[float, Free(), Field(gt=0, le=1)] = Field(
        0.9, description="share of a pass in the running means"
    )
