"""Where tokens are: tables added to tokens, and positions inside attention."""

from typing import Annotated, Literal

from pydantic import Field

from archspec.errors import Refused
from archspec.kind import Free, Kind, Real, Width
from archspec.streams import Stream

COUNTED = "a token's place is the number of real tokens before it; padding has none"


class LearnedPosition(Kind, kind="learned_position"):
    """Adds a learned vector for each place.

    Gehring et al. 2017, "Convolutional Sequence to Sequence Learning", arXiv 1705.03122. ``over`` restricts the places
    to some axes: ``over: [pixel]`` gives the same pixel of every patch the same vector.
    """

    incremental = True
    rare = ("counted",)
    over: list[str] | None = Field(None, description="axes that have places; all by default")
    length: Width | None = Field(None, description="places, where the stream has no largest length")
    offset: Annotated[int, Field(ge=0)] = Field(0, description="the table's rows before the first place, unused")
    counted: bool = Field(False, description=COUNTED)
    std: Annotated[Real, Free()] = 0.02

    def places(self, x: Stream) -> int:
        """Rows of the table without the unused ones."""
        if self.over is None:
            most = x.most if x.most is not None else self.length
            if most is None:
                raise Refused("length", f"{x} has no largest length", "length: 1024")
            return most
        total = 1
        for name in self.over:
            axis = x.axis(name)
            if axis is None or len(x.spans) != 1:
                raise Refused("over", f"there is no axis {name!r} in {x}")
            if axis.most is None:
                raise Refused("over", f"axis {name!r} has no largest size")
            total *= axis.most
        return total

    def output(self, x: Stream) -> Stream:
        self.places(x)
        if self.counted and (self.over is not None or len(x.spans) != 1 or len(x.axes) != 1):
            raise Refused("counted", f"tokens are counted along one axis, not in {x}")
        return x


class SinusoidalPosition(Kind, kind="sinusoidal_position"):
    """Adds sines and cosines of the token's index at geometric frequencies.

    Vaswani et al. 2017, "Attention Is All You Need", arXiv 1706.03762. Frequency i of n is ``base^(-i / n)``; with
    ``closed`` it is ``base^(-i / (n - 1))``, so that the last is ``1 / base`` (Vaswani et al. 2018, "Tensor2Tensor",
    arXiv 1803.07416).
    """

    incremental = True
    rare = ("layout", "closed", "offset", "counted")
    base: Annotated[float, Field(gt=1)] = 10000.0
    layout: Literal["interleaved", "halves"] = Field(
        "interleaved", description="a sine, its cosine, the next sine; or all sines, then all cosines"
    )
    closed: bool = Field(False, description="the last frequency is 1 / base")
    offset: Annotated[int, Field(ge=0)] = Field(0, description="the place of the first token")
    counted: bool = Field(False, description=COUNTED)
    length: Width | None = Field(None, description="places, where the stream has no largest length")

    def output(self, x: Stream) -> Stream:
        if x.most is None and self.length is None:
            raise Refused("length", f"{x} has no largest length", "length: 1024")
        if x.width % 2 or x.width < 4 and self.closed:
            raise Refused("", f"sines and cosines need an even width, not {x.width}")
        if self.counted and (len(x.spans) != 1 or len(x.axes) != 1):
            raise Refused("counted", f"tokens are counted along one axis, not in {x}")
        return x


class Alibi(Kind, kind="alibi", role=("position", "score_bias")):
    """Adds to each score a penalty that grows linearly with the distance, at a fixed slope for each head.

    Press, Smith and Lewis 2021, "Train Short, Test Long", arXiv 2108.12409. Of n heads, a power of two, head i has the
    slope ``factor 2^(-steepest i / n)``; other numbers of heads take every other slope of the next power besides.
    """

    incremental = True
    rare = ("steepest", "factor", "rounded")
    steepest: Annotated[float, Field(gt=0)] = Field(8.0, description="negative power of two of the last head's slope")
    factor: Annotated[float, Field(gt=0)] = Field(1.0, description="on all slopes")
    rounded: bool = Field(
        False, description="adds the slope times the memory's place in bfloat16, as Falcon was trained; causal only"
    )

    def output(self, x: Stream) -> Stream:
        if len(x.spans) != 1 or len(x.axes) != 1:
            raise Refused("", f"a distance needs one axis, not {x}")
        if self.rounded and not x.causal:
            raise Refused("rounded", "without causality a place is no distance", "rounded: false")
        return x


class RelativeBiasTable(Kind, kind="relative_bias_table", role=("position", "score_bias")):
    """Adds to each score a learned number that depends on head and relative place, one for each offset on the grid.

    Liu et al. 2021, "Swin Transformer", arXiv 2103.14030.
    """

    std: Annotated[Real, Free()] = 0.02

    def output(self, x: Stream) -> Stream:
        if len(x.spans) != 1 or any(not isinstance(axis.size, int) for axis in x.axes):
            raise Refused("", f"a table of offsets needs one grid of fixed size, not {x}",
                          "put the attention into a partition with windows")  # fmt: skip
        return x


class NoPosition(Kind, kind="none", role="position"):
    """No position inside attention."""

    incremental = True

    def output(self, x: Stream) -> Stream:
        return x
