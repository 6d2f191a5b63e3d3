"""Rotary positions, and how their frequencies change for contexts longer than a model was first trained on."""

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from archspec.errors import Refused
from archspec.kind import Kind, Width
from archspec.streams import Stream

Positive = Annotated[float, Field(gt=0)]


class Scaling(BaseModel):
    """What changes a rotary frequency ``r = theta^(-2i / width)``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def attention(self, most: int) -> float:
        """Factor on rotated queries and keys, given the largest number of places."""
        return 1.0


class LinearScaling(Scaling):
    """``r / factor``: places lie closer together. Chen et al. 2023, arXiv 2306.15595."""

    kind: Literal["linear"]
    factor: Positive


class DynamicScaling(Scaling):
    """``theta`` grows with the number of places n once there are more than ``length``, so that the longest wave grows
    as the context does: ``theta (factor n / length - factor + 1)^(width / (width - 2))``.

    "Dynamically Scaled RoPE", bloc97 and emozilla 2023; Peng et al. 2023, arXiv 2309.00071, appendix B.2. A whole pass
    turns all keys by the frequencies of its length; decoding leaves keys as they were turned when they came.
    """

    kind: Literal["dynamic"]
    factor: Positive
    length: Width = Field(description="places up to which nothing changes")


class Yarn(Scaling):
    """Long waves ``r / factor``, short ones ``r``, a ramp between those that turn ``slow`` and ``fast`` times within
    ``length``; queries and keys are scaled too. Peng et al. 2023, "YaRN", arXiv 2309.00071.
    """

    kind: Literal["yarn"]
    factor: Positive | None = Field(None, description="largest number of places / length by default")
    length: Width = Field(description="places first trained on")
    attention_factor: Positive | None = Field(
        None, description="on queries and keys; m(mscale) / m(mscale_all) with m(s) = 1 + 0.1 s log(factor) by default"
    )
    mscale: Positive | None = None
    mscale_all: Positive | None = None
    fast: Positive = 32.0
    slow: Positive = 1.0
    truncate: bool = Field(True, description="the ramp begins and ends at whole features")

    def extension(self, most: int) -> float:
        """How many times longer the context became."""
        return self.factor or most / self.length

    def attention(self, most: int) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        grown = math.log(max(1.0, self.extension(most)))
        if self.mscale and self.mscale_all:
            return (0.1 * self.mscale * grown + 1) / (0.1 * self.mscale_all * grown + 1)
        return 0.1 * grown + 1


class LongRope(Scaling):
    """``r / short_i`` while there are at most ``length`` places, ``r / long_i`` beyond, one number for each frequency;
    queries and keys are scaled by ``sqrt(1 + log(factor) / log(length))``.

    Ding et al. 2024, "LongRoPE", arXiv 2402.13753. Decoding leaves keys as they were turned when they came.
    """

    kind: Literal["longrope"]
    short: list[Positive]
    long: list[Positive]
    length: Width = Field(description="places first trained on")
    factor: Positive | None = Field(None, description="largest number of places / length by default")
    attention_factor: Positive | None = None
    long_attention_factor: Positive | None = Field(None, description="beyond length; attention_factor by default")

    def attention(self, most: int) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        return math.sqrt(1 + math.log(max(1.0, self.factor or most / self.length)) / math.log(self.length))


class Llama3Scaling(Scaling):
    """Waves longer than ``length / low`` become ``r / factor``, those shorter than ``length / high`` stay, a smooth
    way between. Grattafiori et al. 2024, "The Llama 3 Herd of Models", arXiv 2407.21783.
    """

    kind: Literal["llama3"]
    factor: Positive = 8.0
    low: Positive = 1.0
    high: Positive = 4.0
    length: Width = Field(8192, description="places first trained on")


RopeScaling = Annotated[LinearScaling | DynamicScaling | Yarn | LongRope | Llama3Scaling, Field(discriminator="kind")]


class Rope(Kind, kind="rope", role="position"):
    """Rotary position: queries and keys are rotated by angles that grow with their coordinate.

    Su et al. 2021, "RoFormer", arXiv 2104.09864. Over a grid each axis rotates its own share of the features
    (Heo et al. 2024, arXiv 2403.13298).

    ``scaling`` is one of

    * ``{kind: linear, factor}``, arXiv 2306.15595;
    * ``{kind: dynamic, factor, length}``;
    * ``{kind: yarn, factor, length, attention_factor, mscale, mscale_all, fast, slow, truncate}``, arXiv 2309.00071;
    * ``{kind: longrope, short, long, length, factor, attention_factor, long_attention_factor}``, arXiv 2402.13753;
    * ``{kind: llama3, factor, low, high, length}``, arXiv 2407.21783.

    Under ``dynamic`` and ``longrope`` angles depend on how long the sequence is; in decoding a token keeps those of the
    length at which it was read.
    """

    incremental = True
    rare = ("values",)
    theta: Annotated[float, Field(gt=0)] = 10000.0
    share: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="part of each head that is rotated")
    layout: Literal["halves", "pairs"] = Field("halves", description="which features are rotated together")
    scaling: RopeScaling | None = Field(None, description="what changes for long contexts")
    values: bool = Field(False, description="values are rotated too")
    length: Width | None = Field(None, description="places, where the stream has no largest length")

    @property
    def among(self) -> bool:  # type: ignore[override]
        return not isinstance(self.scaling, DynamicScaling | LongRope)

    def output(self, x: Stream) -> Stream:
        """Accepts a stream of queries or keys, whose width is that of a head."""
        if not x.axes:
            raise Refused("", f"rotary positions need tokens on one grid, not {x}")
        axes = len(x.axes)
        rotated = int(x.width * self.share)
        if rotated % (2 * axes):
            raise Refused("", f"a head of width {x.width} cannot be rotated along {axes} axes",
                          f"a head width that {2 * axes} divides")  # fmt: skip
        if x.most is None and self.length is None:
            raise Refused("length", f"{x} has no largest length", "length: 1024")
        if isinstance(self.scaling, LongRope):
            for name, factors in (("short", self.scaling.short), ("long", self.scaling.long)):
                if len(factors) != rotated // axes // 2:
                    raise Refused(f"scaling.{name}", f"{len(factors)} factors for {rotated // axes // 2} frequencies")
        if isinstance(self.scaling, DynamicScaling | LongRope) and axes > 1:
            raise Refused("scaling", f"{self.scaling.kind} scaling needs tokens along one axis, not {x}")
        return x
