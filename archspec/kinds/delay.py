"""Tokens that come later."""

from pydantic import Field

from archspec.errors import Refused
from archspec.kind import Kept, Kind, Width
from archspec.streams import Stream


class Delay(Kind, kind="delay"):
    """Each token is the one that stood ``by`` places before it along the only axis; zeros come first.

    So a forecast meets what it was a forecast of.
    """

    incremental = True
    by: Width = Field(1, description="places")

    def output(self, x: Stream) -> Stream:
        if x.content != "features" or len(x.axes) != 1:
            raise Refused("", f"delays features of tokens along one axis, not {x}")
        return x

    def keeps(self, x: Stream) -> tuple[Kept, ...]:
        return (Kept(self.by * x.width, per="sequence"),)
