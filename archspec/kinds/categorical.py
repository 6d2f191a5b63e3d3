"""Streams of named categorical variables, and layers that read some of them and add others: what becomes a program.

Friedman, Wettig and Chen 2023, "Learning Transformer Programs", arXiv 2306.01128. Features are variables side by side,
each of so many ``values``, one-hot once all choices are made. A choice is a softmax at a ``temperature``, with Gumbel
noise in training (Jang et al. 2016, arXiv 1611.01144); at zero it is the largest. `compiler.program` writes programs.
"""

from typing import Annotated, ClassVar

from pydantic import Field

from archspec.errors import Refused, divisors
from archspec.kind import Free, Kind, Moves, Real, Width
from archspec.streams import Stream


class OneHot(Kind, kind="one_hot"):
    """Ids as a variable: the feature of an id's number is one, the others are zero."""

    incremental = True
    values: Width | None = Field(None, description="values of the variable; the vocabulary by default")

    def output(self, x: Stream) -> Stream:
        if x.content != "ids":
            raise Refused("", f"a variable is made of ids, not of {x}")
        if self.values is not None and self.values < x.width:
            raise Refused("values", f"{self.values} values for ids below {x.width}", f"at least {x.width}")
        return x.wide(self.values or x.width)


class OneHotPosition(Kind, kind="one_hot_position"):
    """A variable that tells each token's place along the only axis."""

    values: Width

    def output(self, x: Stream) -> Stream:
        if len(x.axes) != 1 or x.most is None or x.most > self.values:
            raise Refused("values", f"{self.values} values for the places of {x}", "as many as the longest has tokens")
        return x.wide(self.values)


class Choosing(Kind):
    """What attention and channel mixers of variables have in common."""

    exempt: ClassVar[dict[str, str]] = {"gradient": "at temperature zero a choice is made"}
    values: Width = Field(description="values of each variable, those that are read and those that come out")
    temperature: Annotated[Real, Moves(), Field(ge=0)] = Field(1.0, description="of all choices; 0 takes the largest")
    noise: Annotated[Real, Free(), Field(ge=0)] = Field(1.0, description="factor on the Gumbel noise in training")

    def variables(self, x: Stream) -> int:
        """How many variables there are to read."""
        if x.content != "features" or x.width % self.values:
            raise Refused("values", f"{x} is not of variables of {self.values} values", divisors(x.width))
        return x.width // self.values


class CategoricalAttention(Choosing, kind="categorical_attention", role=("mixer", "body")):
    """Heads that each read one variable of the query, of the key and as the value, chosen by gates.

    A learned predicate tells for each value of the query's variable which value of the key's it looks for. A token
    reads the nearest one that matches, the earlier of two, itself last; where none does, the nearest of all. What it
    reads is a new variable of each head.
    """

    heads: Width

    def output(self, x: Stream) -> Stream:
        self.variables(x)
        if len(x.axes) != 1 or x.causal:
            raise Refused("", f"nearness needs one axis along which tokens read both ways, not {x}")
        return x.wide(self.heads * self.values)


class CategoricalMlp(Choosing, kind="categorical_mlp", role=("channel", "body")):
    """Small networks that each read a few variables, chosen by gates, and give one: tables, once choices are made."""

    pointwise = True
    count: Width = Field(1, description="networks, and variables that come out")
    reads: Width = Field(2, description="variables that each reads")
    hidden: Width = 64

    def output(self, x: Stream) -> Stream:
        self.variables(x)
        return x.wide(self.count * self.values)
