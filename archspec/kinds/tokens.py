"""Token operations: pool, select, join, merge, and arithmetic between streams."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field

from archspec.errors import Refused, divisors
from archspec.graph import Node
from archspec.kind import Kind, Matrix, Weighted, Width
from archspec.kinds.combinator import NORM
from archspec.place import Place
from archspec.streams import Axis, Span, Stream, single


class Pool(Kind, kind="pool"):
    """Tokens to fewer tokens: over axes, in windows of a grid, or one of them.

    ``over`` pools whole axes away; ``window`` pools blocks of that size along every axis; ``take`` picks the first or
    last valid token, or a span of one token. Without any of them all tokens are pooled to one.
    """

    over: list[str] | None = Field(None, description="axes that are pooled away")
    window: Width | None = Field(None, description="size of the blocks that become one token")
    take: str | None = Field(None, description="first, last, or the name of a span of one token")
    how: Literal["mean", "max", "sum"] = "mean"

    def output(self, x: Stream) -> Stream:
        if sum(value is not None for value in (self.over, self.window, self.take)) > 1:
            raise Refused("over", "pool over axes, in windows, or take one token", "keep one of over, window and take")
        if not x.spans:
            raise Refused("", f"there is nothing left to pool in {x}")
        if self.take is not None:
            span = x.span(self.take)
            if self.take not in ("first", "last") and (span is None or span.count != 1):
                raise Refused(
                    "take", f"there is no token {self.take!r} in {x}", ["first", "last", *(s.name for s in x.spans)]
                )
            return Stream(x.width, ())
        if self.window is None and self.over is None:
            return Stream(x.width, ())
        if len(x.spans) != 1:
            raise Refused("over" if self.over else "window", f"needs tokens on one grid, not {x}")
        if self.window is not None:
            axes = []
            for axis in x.axes:
                if not isinstance(axis.size, int) or axis.size % self.window or axis.causal:
                    raise Refused("window", f"{axis} does not divide into blocks of {self.window}",
                                  divisors(axis.size) if isinstance(axis.size, int) else None)  # fmt: skip
                axes.append(Axis(axis.name, axis.size // self.window))
            return x.on(Span(x.spans[0].name, tuple(axes)))
        assert self.over is not None
        for name in self.over:
            if x.axis(name) is None:
                raise Refused("over", f"there is no axis {name!r} in {x}", [axis.name for axis in x.axes])
        kept = tuple(axis for axis in x.axes if axis.name not in self.over)
        return Stream(x.width, ()) if not kept else x.on(Span(x.spans[0].name, kept))


class Join(Kind, kind="join"):
    """The tokens of several streams one after another, each keeping its spans.

    If any of the streams says which of its tokens are real, those of the others all are. Labels stay that the tokens
    of all streams carry. With ``span`` they become one list, in which nothing tells any more whose they were; it is
    causal if one of the streams is.
    """

    arity = (1, 99)
    span: str | None = Field(None, description="makes one span of this name of all")

    def infer(self, at: Place) -> Stream:
        spans: list[Span] = []
        for stream in at.inputs:
            if stream.width != at.inputs[0].width:
                raise Refused("from", f"joins tokens of widths {at.inputs[0].width} and {stream.width}",
                              "project one of them first")  # fmt: skip
            spans += stream.spans
        names = [span.name for span in spans]
        for name in names if self.span is None else ():
            if names.count(name) > 1:
                raise Refused(
                    "from", f"two of the streams have a span {name!r}", "give learned tokens a span of another name"
                )
        segmented = [stream.segmented for stream in at.inputs]
        if any(segmented) and not all(segmented):
            raise Refused(
                "from", "only some of the streams lie in segments, which attention does not cross", "shift: 0"
            )
        first, *others = at.inputs
        return replace(
            first.on(*spans) if self.span is None else self.listed(first.on(*spans)),
            labels=tuple(label for label in first.labels if all(label in stream.labels for stream in others)),
            placed=first.placed and not others,
            valid=any(stream.valid for stream in at.inputs),
        )

    def listed(self, x: Stream) -> Stream:
        """All tokens as one list, along the axis of those that are causal."""
        axes = [axis for span in x.spans for axis in span.axes]
        causal = [span for span in x.spans if any(axis.causal for axis in span.axes)]
        if len(causal) > 1 or any(len(span.axes) > 1 for span in causal):
            raise Refused("span", f"more than one list along {', '.join(sorted(x.causal_axes))}, which would know all")
        axis = next((axis for axis in axes if axis.causal), axes[0] if axes else Axis("token", 0))
        assert self.span is not None
        return x.on(Span(self.span, (Axis(axis.name, x.count, axis.causal, x.most),)))


class Combine(Kind, kind="combine"):
    """Adds or multiplies streams, subtracts the others from the first, or puts their features side by side.

    A stream of one token (or of none, a vector) goes to every token of the first.
    """

    incremental = True
    arity = (1, 99)
    how: Literal["add", "subtract", "multiply", "concat", "mean"] = "add"

    def infer(self, at: Place) -> Stream:
        first = at.inputs[0]
        for number, stream in enumerate(at.inputs[1:], 1):
            if stream.spans and stream.spans != first.spans and stream.count not in (1, first.count):
                raise Refused("from", f"cannot {self.how} {first} and {stream}")
            if self.how != "concat" and stream.width not in (first.width, 1):
                raise Refused("from", f"cannot {self.how} widths {first.width} and {stream.width}",
                              "project one of them first")  # fmt: skip
            assert number
        if self.how == "concat":
            return first.wide(sum(stream.width for stream in at.inputs))
        return first


class PatchMerging(Weighted, kind="patch_merging"):
    """Joins the features of each block of neighbouring tokens and maps them to one token.

    Liu et al. 2021, "Swin Transformer", arXiv 2103.14030. The norm stands before the map, as there, or after it.
    """

    factor: Width = 2
    width: Width
    norm: Annotated[Any, NORM] = "layer_norm"
    place: Literal["before", "after"] = "before"
    bias: bool = False

    def infer(self, at: Place) -> Stream:
        x = at.one()
        if len(x.spans) != 1 or not x.axes:
            raise Refused("", f"merges tokens of a grid, not {x}")
        axes = []
        for axis in x.axes:
            if not isinstance(axis.size, int) or axis.size % self.factor:
                raise Refused("factor", f"{axis} does not divide by {self.factor}",
                              divisors(axis.size) if isinstance(axis.size, int) else None)  # fmt: skip
            axes.append(Axis(axis.name, axis.size // self.factor))
        block = x.width * self.factor ** len(axes)
        merged = single(block, x.spans[0].name, *axes)
        out = merged.wide(self.width)
        if at.has("norm"):
            at.slot("norm", merged if self.place == "before" else out)
        at.own({"weight": Matrix(block, self.width, self.bias)})
        return out

    def written(self, node: Node, writer: Any) -> dict[str, Any]:
        return {"norm": "absent", **super().written(node, writer)}


class PatchExpanding(Weighted, kind="patch_expanding"):
    """Maps each token to a block of neighbouring tokens: the reverse of patch merging.

    Cao et al. 2021, "Swin-Unet", arXiv 2105.05537.
    """

    factor: Width = 2
    width: Width
    bias: bool = False

    def infer(self, at: Place) -> Stream:
        x = at.one()
        if len(x.spans) != 1 or not x.axes or any(not isinstance(axis.size, int) for axis in x.axes):
            raise Refused("", f"expands tokens of a grid of fixed size, not {x}")
        axes = tuple(Axis(axis.name, int(axis.size) * self.factor) for axis in x.axes)
        at.own({"weight": Matrix(x.width, self.width * self.factor ** len(axes), self.bias)})
        return single(self.width, x.spans[0].name, *axes)


class Gather(Weighted, kind="gather"):
    """Joins the tokens along some axes into the features of one token: the pixels of a patch into the patch.

    Han et al. 2021, "Transformer in Transformer", arXiv 2103.00112.
    """

    over: list[str]
    width: Width
    bias: bool = True
    norm: Annotated[Any, NORM] = None
    norm_after: Annotated[Any, NORM] = None

    def infer(self, at: Place) -> Stream:
        x = at.one()
        if len(x.spans) != 1:
            raise Refused("over", f"needs tokens on one grid, not {x}")
        block = x.width
        for name in self.over:
            axis = x.axis(name)
            if axis is None or not isinstance(axis.size, int):
                raise Refused("over", f"there is no axis {name!r} of fixed size in {x}", [axis.name for axis in x.axes])
            block *= axis.size
        kept = tuple(axis for axis in x.axes if axis.name not in self.over)
        if x.axes[: len(kept)] != kept:
            raise Refused("over", "only the last axes can be gathered", [axis.name for axis in x.axes[::-1]])
        joined = single(block, x.spans[0].name, *kept)
        if at.has("norm"):
            at.slot("norm", joined)
        if at.has("norm_after"):
            at.slot("norm_after", joined.wide(self.width))
        at.own({"weight": Matrix(block, self.width, self.bias)})
        return joined.wide(self.width)


class Regroup(Kind, kind="regroup"):
    """Makes each block of neighbouring tokens an axis of its own: the pixels of a patch.

    Tokens on [row, column] become tokens on [row, column, pixel], ``size`` × ``size`` pixels for each of fewer places.
    """

    size: Width
    axis: str = Field("pixel", description="name of the new axis")

    def output(self, x: Stream) -> Stream:
        if len(x.spans) != 1 or not x.axes:
            raise Refused("", f"regroups tokens of a grid, not {x}")
        axes = []
        for axis in x.axes:
            if not isinstance(axis.size, int) or axis.size % self.size:
                raise Refused("size", f"{axis} does not divide into blocks of {self.size}",
                              divisors(axis.size) if isinstance(axis.size, int) else None)  # fmt: skip
            axes.append(Axis(axis.name, axis.size // self.size))
        block = Axis(self.axis, self.size ** len(x.axes))
        return x.on(Span(x.spans[0].name, (*axes, block)))


class Flatten(Kind, kind="flatten"):
    """Makes one axis of all axes of a span: a small grid becomes a list."""

    axis: str = Field(description="name of the axis")

    def output(self, x: Stream) -> Stream:
        if len(x.spans) != 1:
            raise Refused("", f"flattens one span, not those of {x}")
        if x.causal and len(x.axes) > 1:
            raise Refused("", f"would lose the causality of {x}")
        only = x.axes[0] if len(x.axes) == 1 else None
        flat = Axis(self.axis, x.count, bool(only and only.causal), only.limit if only else x.most)
        return x.on(Span(x.spans[0].name, (flat,)))


class Resize(Kind, kind="resize"):
    """Resamples a grid of two axes to another size.

    ``bicubic`` and ``bilinear`` as images are resized, without aligned corners.
    """

    size: list[Width] = Field(min_length=2, max_length=2, description="rows and columns")
    how: Literal["bicubic", "bilinear", "nearest"] = "bicubic"

    def output(self, x: Stream) -> Stream:
        if len(x.spans) != 1 or len(x.axes) != 2 or x.causal or any(isinstance(axis.size, str) for axis in x.axes):
            raise Refused("", f"resizes one grid of rows and columns, not {x}")
        axes = tuple(Axis(axis.name, size) for axis, size in zip(x.axes, self.size, strict=True))
        return single(x.width, x.spans[0].name, *axes)


class Rename(Kind, kind="rename"):
    """Gives the tokens' only span another name, so that it can be joined with one of the same name."""

    span: str

    def output(self, x: Stream) -> Stream:
        if len(x.spans) != 1:
            raise Refused("", f"renames one span, not those of {x}")
        return x.on(Span(self.span, x.axes))


class Whole(Kind, kind="whole"):
    """Tokens of a finished segment: from here on attention may look at all of them, along a causal axis too.

    For what leaves the call, such as the state that the next one begins with. What comes from it must not reach the
    output of the same call.
    """

    exempt = {"causality": "it is where causality ends"}

    def output(self, x: Stream) -> Stream:
        spans = tuple(Span(span.name, tuple(replace(axis, causal=False) for axis in span.axes)) for span in x.spans)
        return x.on(*spans)
