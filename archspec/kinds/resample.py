"""Fewer tokens along a sequence, and as many again."""

from dataclasses import replace
from typing import Literal

from pydantic import Field

from archspec.errors import Refused
from archspec.kind import Kind, Width
from archspec.place import Place
from archspec.streams import Axis, Size, Span, Stream


class Downsample(Kind, kind="downsample"):
    """Each ``factor`` neighbours along the only axis become one token, their mean or maximum; the last may be fewer.

    Dai et al. 2020, "Funnel-Transformer", arXiv 2006.03236. With ``lone_first`` the first token stays alone, such as a
    class token; ``truncate`` then drops ``factor - 1`` tokens at the end, so that as many are left as without it. A
    token has the labels of the first of its group, and is real if ``any`` token of the group is, whose mean it then
    is, or if ``all`` are. A sequence of one token, beside the lone one, stays as it is.
    """

    factor: Width = 2
    how: Literal["mean", "max"] = "mean"
    lone_first: bool = Field(False, description="the first token is a group of its own")
    truncate: bool = Field(False, description="with lone_first, drops factor - 1 tokens at the end")
    real: Literal["any", "all"] = Field("any", description="of which tokens of a group must be real")

    def output(self, x: Stream) -> Stream:
        if x.content != "features" or len(x.axes) != 1:
            raise Refused("", f"tokens of one axis are joined, not those of {x}")
        if x.causal or x.segmented:
            raise Refused(
                "", f"a group may not reach over what {x} keeps apart", "partition: chunks, and a pool in each"
            )
        if self.truncate and not self.lone_first:
            raise Refused("truncate", "without lone_first there is no place too much", "truncate: false")
        axis = x.axes[0]
        limit = None if axis.limit is None else self.count(axis.limit)
        size: Size
        if isinstance(axis.size, int):
            size = self.count(axis.size)
        else:
            more = 2 * self.factor - 2 if self.lone_first and not self.truncate else self.factor - 1
            size = f"({axis.size}+{more})/{self.factor}"
        span = Span(x.spans[0].name, (Axis(axis.name, size, limit=limit, step=axis.step * self.factor),))
        return replace(x, spans=(span,), placed=False)

    def count(self, tokens: int) -> int:
        """Groups of so many tokens."""
        lone = int(self.lone_first)
        if tokens <= 1 + lone:
            return tokens
        rest = tokens - lone - (self.factor - 1 if self.truncate else 0)
        return lone + max(0, -(-rest // self.factor))


class Upsample(Kind, kind="upsample"):
    """Repeats each token of the first stream ``factor`` times, for the tokens of the second; zeros where too few come.

    Dai et al. 2020, "Funnel-Transformer", arXiv 2006.03236. With ``lone_first`` the first token is not repeated.
    """

    arity = (2, 2)
    factor: Width = 2
    lone_first: bool = Field(False, description="the first token stands for itself alone")

    def infer(self, at: Place) -> Stream:
        x, like = at.inputs
        for stream in (x, like):
            if stream.content != "features" or len(stream.axes) != 1 or stream.causal:
                raise Refused("from", f"repeats features of tokens along one axis that is not causal, not {stream}")
        return like.wide(x.width)
