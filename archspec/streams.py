"""The one type that every edge of a graph carries.

A stream is a set of tokens of one width. Its tokens lie in an ordered list of named spans, each a grid of named axes
(a class token before the patches of an image). Tensors hold the tokens of all spans one after another, each span in
row-major order: ``[batch, tokens, width]``. Beside its features a token may carry labels, validity, a segment
(attention never crosses segments), and coordinates of its own where they are no longer its indices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

Size = int | str
"""A number, or the name of a length that is known when the model runs."""


@dataclass(frozen=True)
class Axis:
    """A named direction of a grid of tokens.

    Args:
        name: ``token``, ``row``, ``column``, ``time``, …
        size: tokens along it.
        causal: attention along it never looks ahead.
        limit: places along it, where they are more than its tokens or its size is known only when the model runs.
        step: distance of neighbours, where each stands for several that were joined.
    """

    name: str
    size: Size
    causal: bool = False
    limit: int | None = None
    step: int = 1

    @property
    def most(self) -> int | None:
        return self.limit if self.limit is not None else self.size if isinstance(self.size, int) else None

    def __str__(self) -> str:
        return f"{self.name}={self.size}" + (f" by {self.step}" if self.step != 1 else "")


@dataclass(frozen=True)
class Span:
    """A named run of tokens that form a grid; no axes for a single token."""

    name: str
    axes: tuple[Axis, ...]

    @cached_property
    def count(self) -> Size:
        return _product([axis.size for axis in self.axes])

    @cached_property
    def most(self) -> int | None:
        sizes = [axis.most for axis in self.axes]
        return None if None in sizes else prod(size for size in sizes if size is not None)

    def __str__(self) -> str:
        return f"{self.name}[{', '.join(map(str, self.axes))}]" if self.axes else self.name


@dataclass(frozen=True)
class Stream:
    """The type of an edge.

    Args:
        width: features of a token; for ``ids`` the size of the vocabulary, for ``scalar`` 1.
        spans: where the tokens lie.
        content: ``features``, ``ids`` (one integer a token) or ``scalar`` (one number for all tokens, such as a loss).
        labels: names and numbers of values of the integers that tokens carry.
        placed, valid, segmented: whether tokens carry coordinates, validity, or a segment.
        ahead: causal axes of which a token may know more than its past: what was pooled along one, say.
    """

    width: int
    spans: tuple[Span, ...]
    content: str = "features"
    labels: tuple[tuple[str, int], ...] = ()
    placed: bool = False
    valid: bool = False
    segmented: bool = False
    ahead: frozenset[str] = frozenset()

    @cached_property
    def count(self) -> Size:
        """Tokens in all spans."""
        return _sum([span.count for span in self.spans])

    @cached_property
    def most(self) -> int | None:
        """The largest number of tokens; None when it is unbounded."""
        sizes = [span.most for span in self.spans]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes of a stream of one span."""
        return self.spans[0].axes if len(self.spans) == 1 else ()

    @property
    def causal(self) -> bool:
        return bool(self.causal_axes)

    @cached_property
    def causal_axes(self) -> frozenset[str]:
        """Names of the axes along which nothing looks ahead."""
        return frozenset(axis.name for span in self.spans for axis in span.axes if axis.causal)

    def knowing(self, *others: Stream) -> Stream:
        """This type for tokens made from others: along a causal axis that is gone, they know the future."""
        ahead = self.ahead.union(*(other.ahead | other.causal_axes - self.causal_axes for other in others))
        return self if ahead == self.ahead else replace(self, ahead=ahead)

    def axis(self, name: str) -> Axis | None:
        return next((axis for span in self.spans for axis in span.axes if axis.name == name), None)

    def span(self, name: str) -> Span | None:
        return next((span for span in self.spans if span.name == name), None)

    def wide(self, width: int) -> Stream:
        """The same tokens with another width."""
        return replace(self, width=width, content="features")

    def on(self, *spans: Span) -> Stream:
        """The same width and labels on other spans."""
        return replace(self, spans=spans)

    @cached_property
    def text(self) -> str:
        spans = " + ".join(map(str, self.spans)) if self.spans else "one vector"
        marks = [name for name in ("placed", "valid", "segmented") if getattr(self, name)]
        marks += [f"ahead of {name}" for name in sorted(self.ahead)]
        marks += [f"{name}:{count}" for name, count in self.labels]
        what = "" if self.content == "features" else f" {self.content}"
        return f"{spans} × {self.width}{what}" + (f" ({', '.join(marks)})" if marks else "")

    def __str__(self) -> str:
        return self.text


def _product(sizes: list[Size]) -> Size:
    number = prod(size for size in sizes if isinstance(size, int))
    words = [size for size in sizes if isinstance(size, str)]
    return number if not words else "*".join([*([str(number)] if number != 1 else []), *words])


def _sum(sizes: list[Size]) -> Size:
    number = sum(size for size in sizes if isinstance(size, int))
    words = [size for size in sizes if isinstance(size, str)]
    return number if not words else " + ".join([*([str(number)] if number else []), *words])


SCALAR = Stream(1, (), content="scalar")


def single(width: int, name: str, *axes: Axis) -> Stream:
    """A stream of one span."""
    return Stream(width, (Span(name, axes),))
