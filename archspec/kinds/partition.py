"""Where tokens mix: streams cut into groups, a body applied in each (`partition`), and the schemes that cut."""

from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import Field

from archspec.errors import Refused, divisors, either
from archspec.kind import Kind, Slot, Width
from archspec.kinds.combinator import BODY, ports
from archspec.place import Place
from archspec.source import Map
from archspec.streams import Axis, Size, Span, Stream


@dataclass(frozen=True)
class Cut:
    """How one axis is cut: into ``groups`` of ``size`` neighbours, or of tokens ``groups`` apart.

    ``padded`` is the axis's size once it is filled up to whole groups; ``shift`` rolls it first. An axis that is
    ``outside`` tells groups apart and is none of theirs.
    """

    axis: Axis
    groups: Size
    size: Size
    strided: bool = False
    shift: int = 0
    padded: int | None = None
    outside: bool = False


class Scheme(Kind):
    """Cuts every axis of a stream of one span."""

    def cuts(self, x: Stream) -> list[Cut]:
        """How each axis is cut."""
        raise NotImplementedError

    def infer(self, at: Place) -> Stream:
        return at.inputs[0]


class Windows(Scheme, kind="windows", role="scheme"):
    """Blocks of neighbouring tokens, ``size`` along every axis; ``shift`` moves them cyclically.

    Liu et al. 2021, "Swin Transformer", arXiv 2103.14030: after a shift, tokens that were not neighbours before share a
    window but do not see each other.
    """

    size: Width | list[Width]
    shift: Annotated[int, Field(ge=0)] = 0
    pad: bool = Field(False, description="fills up axes that windows do not divide; filled places are not seen")

    def cuts(self, x: Stream) -> list[Cut]:
        sizes = self.size if isinstance(self.size, list) else [self.size] * len(x.axes)
        if len(sizes) != len(x.axes):
            raise Refused("size", f"{len(sizes)} sizes for {len(x.axes)} axes")
        cuts = []
        for axis, size in zip(x.axes, sizes, strict=True):
            if axis.causal:
                raise Refused("", f"windows of a causal axis, {axis.name}", "kind: chunks")
            cuts.append(
                replace(_whole_groups(axis, size, self.pad), shift=self.shift % size if size != axis.size else 0)
            )
        return cuts


class Chunks(Scheme, kind="chunks", role="scheme"):
    """Runs of neighbouring tokens of the only axis, of one size or of one number; a causal axis stays causal inside."""

    size: Width | None = Field(None, description="tokens of a chunk")
    count: Width | None = Field(None, description="how many chunks")
    pad: bool = False

    def cuts(self, x: Stream) -> list[Cut]:
        if len(x.axes) != 1:
            raise Refused("", f"chunks are cut from one axis, not from {x}", "kind: windows")
        if (self.size is None) == (self.count is None):
            raise Refused("size", "say either size or count", "size: 64")
        axis = x.axes[0]
        if self.size is not None:
            return [_whole_groups(axis, self.size, self.pad)]
        assert self.count is not None
        if isinstance(axis.size, str):
            limit = axis.limit // self.count if axis.limit else None
            return [Cut(replace(axis, limit=limit), self.count, f"{axis.size}/{self.count}")]
        if axis.size % self.count:
            raise Refused(
                "count", f"{axis.name} {axis.size} does not divide into {self.count} chunks", divisors(axis.size)
            )
        return [Cut(axis, self.count, axis.size // self.count)]


class Strided(Scheme, kind="strided", role="scheme"):
    """Groups of ``size`` tokens spread evenly over every axis (dilated attention).

    Child et al. 2019, "Generating Long Sequences with Sparse Transformers", arXiv 1904.10509; on volumes
    Wu et al. 2022, "D-Former", arXiv 2201.00462.
    """

    size: Width | list[Width]
    pad: bool = False

    def cuts(self, x: Stream) -> list[Cut]:
        sizes = self.size if isinstance(self.size, list) else [self.size] * len(x.axes)
        if len(sizes) != len(x.axes):
            raise Refused("size", f"{len(sizes)} sizes for {len(x.axes)} axes")
        return [
            replace(_whole_groups(axis, size, self.pad), strided=True) for axis, size in zip(x.axes, sizes, strict=True)
        ]


def _whole_groups(axis: Axis, size: int, pad: bool) -> Cut:
    if isinstance(axis.size, str):
        if pad:
            raise Refused("pad", f"axis {axis.name!r} has no fixed size to fill up")
        return Cut(axis, f"{axis.size}/{size}", size)
    if axis.size % size and not pad:
        raise Refused("size", f"{axis.name} {axis.size} does not divide into groups of {size}",
                      f"try size: {either(divisors(axis.size))}, or pad: true")  # fmt: skip
    groups = -(-axis.size // size)
    return Cut(axis, groups, size, padded=groups * size if groups * size != axis.size else None)


class Partition(Kind, kind="partition"):
    """Cuts the streams in its ``from`` alike into groups and applies a body in each.

    By a ``scheme``, one for all or one for each stream by name, or ``within`` some axes: the tokens that differ only
    along these form a group. Other streams that the body names reach every group whole. The body may change the length
    of a group.
    """

    carries = True
    arity = (1, 99)
    scheme: Annotated[Any, Slot(("scheme",), named=True)] = None
    within: list[str] | None = Field(None, description="axes that a group keeps")
    body: Annotated[Any, BODY]

    def infer(self, at: Place) -> dict[str, Stream]:
        if (self.scheme is None) == (self.within is None):
            raise Refused("scheme", "say either scheme or within", "scheme: {kind: windows, size: 7}")
        cuts = [self.cut(at, stream, name) for stream, name in zip(at.inputs, at.names, strict=True)]
        counts = [groups_of(cut) for cut in cuts]
        for name, count in zip(at.names[1:], counts[1:], strict=True):
            if count != counts[0]:
                raise Refused("scheme", f"cuts {at.names[0]} into {counts[0]} groups and {name} into {count}")
        inside = [inner(stream, cut) for stream, cut in zip(at.inputs, cuts, strict=True)]
        graph = at.slot("body", *inside, names=at.names)
        outputs = {}
        for name, out in graph.types.items():
            outputs[name] = self.outside(out, at.inputs, inside, cuts).knowing(out)
        return ports(outputs)

    def cut(self, at: Place, stream: Stream, name: str) -> list[Cut]:
        """How one of the streams is cut."""
        if len(stream.spans) != 1 or not stream.axes:
            raise Refused("from", f"{name} has no single grid to cut: {stream}", f"from: {name}.{_first_span(stream)}")
        if self.within is not None:
            for axis_name in self.within:
                if stream.axis(axis_name) is None:
                    raise Refused(
                        "within", f"there is no axis {axis_name!r} in {stream}", [a.name for a in stream.axes]
                    )
            return self._kept(stream)
        raw = at.raw("scheme")
        single = not isinstance(raw, Map) or "kind" in raw
        if not single and name not in raw:
            raise Refused("scheme", f"says nothing of {name!r}", f"scheme: {{{name}: …}}")
        key = "scheme" if single else f"scheme.{name}"
        graph = at.slot("scheme", stream, item=None if single else name, as_=key)
        scheme = graph.nodes[0].kind
        assert isinstance(scheme, Scheme)
        try:
            return scheme.cuts(stream)
        except Refused as refused:
            raise Refused(f"{key}.{refused.field}", refused.cause, refused.hint) from None

    def _kept(self, stream: Stream) -> list[Cut]:
        """The cuts of ``within``: each group keeps its axes whole, the others tell groups apart."""
        kept = self.within or ()
        return [Cut(a, 1, a.size) if a.name in kept else Cut(a, a.size, 1, outside=True) for a in stream.axes]

    def schemes(self, bodies: dict[str, Any], streams: tuple[Stream, ...], names: tuple[str, ...]) -> list[list[Cut]]:
        """The cuts of an elaborated node, for the module that computes them."""
        if self.within is not None:
            return [self._kept(stream) for stream in streams]
        found = []
        for stream, name in zip(streams, names, strict=True):
            body = bodies.get("scheme") or bodies[f"scheme.{name}"]
            found.append(body.nodes[0].kind.cuts(stream))
        return found

    def outside(self, out: Stream, streams: tuple[Stream, ...], inside: list[Stream], cuts: list[list[Cut]]) -> Stream:
        """The type of an output once the groups are put back."""
        for stream, inner_ in zip(streams, inside, strict=True):
            if out.spans == inner_.spans:
                return stream.wide(out.width)
        if self.within is not None:
            kept = tuple(cut.axis for cut in cuts[0] if cut.outside)
            axes = out.axes if out.spans else ()
            return Stream(out.width, (Span(streams[0].spans[0].name, (*kept, *axes)),), labels=())
        if len(cuts[0]) == 1 and len(out.axes) == 1:
            groups, axis = cuts[0][0].groups, out.axes[0]
            size: Size = (
                groups * axis.size
                if isinstance(groups, int) and isinstance(axis.size, int)
                else f"{groups}*{axis.size}"
            )
            most = cuts[0][0].axis.most
            part = cuts[0][0].size
            whole = isinstance(axis.size, int) and isinstance(part, int)
            limit = most * int(axis.size) // int(part) if most and whole else None
            return Stream(out.width, (Span(out.spans[0].name, (Axis(axis.name, size, axis.causal, limit),)),))
        if not out.spans or out.count == 1:
            axes = tuple(Axis(c.axis.name, c.groups, c.axis.causal) for c in cuts[0])
            return Stream(out.width, (Span(streams[0].spans[0].name, axes),))
        taken = {cut.axis.name for cut in cuts[0]}
        if len(out.spans) == 1 and not taken & {axis.name for axis in out.axes}:
            places = tuple(Axis(c.axis.name, c.groups, c.axis.causal) for c in cuts[0])
            return Stream(out.width, (Span(out.spans[0].name, (*places, *out.axes)),))
        raise Refused("body", f"gives {out} in a group of {inside[0]}; the groups cannot be put back")


def _first_span(stream: Stream) -> str:
    grids = [span.name for span in stream.spans if span.axes]
    return grids[0] if grids else "span"


def groups_of(cuts: list[Cut]) -> Size:
    """How many groups a stream is cut into."""
    numbers = [cut.groups for cut in cuts]
    if all(isinstance(number, int) for number in numbers):
        total = 1
        for number in numbers:
            total *= int(number)
        return total
    return "*".join(str(number) for number in numbers if number != 1)


def inner(stream: Stream, cuts: list[Cut]) -> Stream:
    """The type of one group."""
    axes = tuple(replace(cut.axis, size=cut.size) for cut in cuts if not cut.outside)
    shifted = any(cut.shift for cut in cuts)
    padded = any(cut.padded is not None for cut in cuts)
    span = Span(stream.spans[0].name, axes)
    return replace(stream, spans=(span,), segmented=stream.segmented or shifted, valid=stream.valid or padded)
