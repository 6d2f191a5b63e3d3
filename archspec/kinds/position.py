"""Where tokens are: tables added to tokens, and positions inside attention."""

from typing import Annotated, Literal

from pydantic import Field

from archspec.errors import Refused
from archspec.kind import Free, Kind, Real, Width
from archspec.streams import Stream


class LearnedPosition(Kind, kind="learned_position"):
    """Adds a learned vector for each place.

    Gehring et al. 2017, "Convolutional Sequence to Sequence Learning", arXiv 1705.03122. ``over`` restricts the places
    to some axes: ``over: [pixel]`` gives the same pixel of every patch the same vector.
    """

    incremental = True
    over: list[str] | None = Field(None, description="axes that have places; all by default")
    length: Width | None = Field(None, description="places, where the stream has no largest length")
    offset: Annotated[int, Field(ge=0)] = Field(0, description="the table's rows before the first place, unused")
    std: Annotated[Real, Free()] = 0.02

    def places(self, x: Stream) -> int:
        """Rows of the table."""
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
        return x


class SinusoidalPosition(Kind, kind="sinusoidal_position"):
    """Adds sines and cosines of the token's index at geometric frequencies.

    Vaswani et al. 2017, "Attention Is All You Need", arXiv 1706.03762.
    """

    incremental = True
    base: Annotated[float, Field(gt=1)] = 10000.0
    length: Width | None = Field(None, description="places, where the stream has no largest length")

    def output(self, x: Stream) -> Stream:
        if x.most is None and self.length is None:
            raise Refused("length", f"{x} has no largest length", "length: 1024")
        if x.width % 2:
            raise Refused("", f"sines and cosines need an even width, not {x.width}")
        return x


class RopeScaling(Kind, kind="rope_scaling", role="rope_scaling"):
    """How rotary frequencies change for contexts longer than trained on.

    ``linear``: Chen et al. 2023, arXiv 2306.15595. ``llama3``: Grattafiori et al. 2024, "The Llama 3 Herd of Models",
    arXiv 2407.21783.
    """

    kind: Literal["linear", "llama3"] = "llama3"
    factor: Annotated[float, Field(gt=0)] = 8.0
    low: Annotated[float, Field(gt=0)] = Field(
        1.0, description="llama3: wavelengths longer than length / low are scaled"
    )
    high: Annotated[float, Field(gt=0)] = Field(
        4.0, description="llama3: wavelengths shorter than length / high are kept"
    )
    length: Width = Field(8192, description="llama3: the length that the model was first trained on")


class Rope(Kind, kind="rope", role="position"):
    """Rotary position: queries and keys are rotated by angles that grow with their coordinate.

    Su et al. 2021, "RoFormer", arXiv 2104.09864. Over a grid each axis rotates its own share of the features
    (Heo et al. 2024, arXiv 2403.13298).
    """

    incremental = True
    theta: Annotated[float, Field(gt=0)] = 10000.0
    share: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="part of each head that is rotated")
    layout: Literal["halves", "pairs"] = Field("halves", description="which features are rotated together")
    scaling: RopeScaling | None = None
    length: Width | None = Field(None, description="places, where the stream has no largest length")

    def output(self, x: Stream) -> Stream:
        """Accepts a stream of queries or keys, whose width is that of a head."""
        if not x.axes:
            raise Refused("", f"rotary positions need tokens on one grid, not {x}")
        axes = len(x.axes)
        if int(x.width * self.share) % (2 * axes):
            raise Refused("", f"a head of width {x.width} cannot be rotated along {axes} axes",
                          f"a head width that {2 * axes} divides")  # fmt: skip
        if x.most is None and self.length is None:
            raise Refused("length", f"{x} has no largest length", "length: 1024")
        return x


class Alibi(Kind, kind="alibi", role=("position", "score_bias")):
    """Adds to each score a penalty that grows linearly with the distance, at a fixed slope for each head.

    Press, Smith and Lewis 2021, "Train Short, Test Long", arXiv 2108.12409.
    """

    incremental = True

    def output(self, x: Stream) -> Stream:
        if len(x.spans) != 1 or len(x.axes) != 1:
            raise Refused("", f"a distance needs one axis, not {x}")
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
