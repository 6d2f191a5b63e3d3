"""What a kind sees of its place while it is typed: its inputs, and a way to elaborate its slots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from archspec.errors import Refused
from archspec.graph import Graph, Node, Ref
from archspec.kind import Matrix
from archspec.reuse import Round
from archspec.scope import Frame, Scope
from archspec.source import Map, Seq
from archspec.streams import Stream

if TYPE_CHECKING:
    from archspec.elaborate import Elaborator


class Place:
    """Handed to ``Kind.infer``; collects what the node gets besides its outputs."""

    def __init__(self, elaborator: Elaborator, node: Node, raw: Map, frame: Frame, scope: Scope) -> None:
        self._elaborator, self._node, self._raw, self._frame, self.scope = elaborator, node, raw, frame, scope
        self.interface = elaborator.interface

    @property
    def inputs(self) -> tuple[Stream, ...]:
        return self._node.types

    @property
    def bodies(self) -> Mapping[str, Graph]:
        """The bodies elaborated so far, by slot."""
        return self._node.bodies

    @property
    def names(self) -> tuple[str, ...]:
        """What the inputs are called where they come from; the last part of a dotted name."""
        return tuple(str(ref).rsplit(".", 1)[-1] for ref in self._node.inputs)

    def one(self) -> Stream:
        """The only input."""
        return self.inputs[0]

    def own(self, matrices: Mapping[str, Matrix]) -> None:
        """Declares the node's weight matrices, what kind each is, and which have a bias."""
        biases: dict[str, bool] = getattr(self._node.kind, "biases", {})
        for role in biases:
            if role not in matrices:
                raise Refused(f"biases.{role}", f"{self._node.kind.name_} has no matrix {role!r}",
                              f"its matrices are {', '.join(matrices)}")  # fmt: skip
        for role, plain in matrices.items():
            matrix = plain._replace(bias=biases.get(role, plain.bias))
            self._node.matrices[role] = (matrix, self._elaborator.matrix(self, role, matrix))
        named = self._raw.get("linears")
        for role in named if isinstance(named, Map) else ():
            if role not in matrices and isinstance(named, Map):
                self._elaborator.unknown_field(named, role, matrices, f"the matrices of {self._node.kind.name_}")
                raise Broken

    def tie(self, width: int, rows: int, name: str | None = None) -> None:
        """Uses the table of the file's token embedding of this width and number of rows, and of this name if given."""
        self._node.tied = self._elaborator.embedding(width, rows, name)

    def has(self, field: str) -> bool:
        """Whether a slot is filled."""
        raw = self._raw.get(field)
        return raw is not None and raw != "absent"

    def is_kind(self, field: str, kind: str) -> bool:
        """Whether a slot holds a kind of this name, or a block that is no more than that."""
        raw, _ = self._elaborator.unfold(self._raw.get(field), self._raw, field, self.scope)
        return (raw.get("kind") if isinstance(raw, Map) else raw) == kind

    def slot(
        self,
        field: str,
        *streams: Stream,
        names: tuple[str, ...] = (),
        item: int | str | None = None,
        as_: str | None = None,
        **numbers: Any,
    ) -> Graph:
        """Elaborates the node or body in a slot.

        Args:
            streams: the types that the body is given; ``names``, what it may call them.
            item: which of a list or mapping of nodes.
            as_: the key under which the node keeps the body, its field by default.
            numbers: what expressions inside may read besides.
        """
        container: Map | Seq = self._raw
        key: Any = field
        if self._raw.get(field) is None:
            raise Refused(field, f"{field!r} is missing", f"add {field}: …")
        if item is not None and isinstance(self._raw.get(field), (Map, Seq)):
            container, key = self._raw[field], item
        graph = self._elaborator.body(
            container,
            key,
            streams,
            names,
            self._frame,
            self.scope.child(**numbers) if numbers else self.scope,
            self._node.kind.slots[field],
        )
        self.keep(as_ or (field if item is None else f"{field}.{item}"), graph)
        return graph

    def keep(self, key: str, graph: Graph) -> None:
        """Files an elaborated body under the node."""
        self._node.bodies[key] = graph
        for name in graph.outer:
            found = self._frame.resolve(name)
            assert found is not None and found[1] is not None, name
            self._node.outer[name], self._node.outer_types[name] = found[0], found[1]

    def apply(self, field: str, stream: Stream) -> Stream:
        """The output of a slot's body of one output; the stream itself where the slot is empty."""
        return self.slot(field, stream).output if self.has(field) else stream

    def source(self, field: str, stream: Stream) -> Stream:
        """What a slot says to read: the stream that it names, what its body makes of this one, or this one itself."""
        if not self.has(field):
            return stream
        return self.stream(field) or self.slot(field, stream).output

    def stream(self, field: str) -> Stream | None:
        """The stream that a slot names, or None if it holds a node or nothing."""
        text = self._raw.get(field)
        if not isinstance(text, str):
            return None
        found = self._frame.resolve(text)
        if found is None:
            return None
        if self._elaborator.is_node(text):
            raise Refused(
                field, f"{text!r} is both a kind or block and a stream", "give the node that gives the stream a name"
            )
        ref, stream = found
        if stream is None:
            raise Broken
        self._node.streams[field] = text
        self._node.outer[text], self._node.outer_types[text] = ref, stream
        return stream

    @property
    def raws(self) -> Map:
        """The node as it stands in the file."""
        return self._raw

    @property
    def layers(self) -> int:
        """How many layers the file had up to here."""
        return self._elaborator.layer

    @layers.setter
    def layers(self, count: int) -> None:
        self._elaborator.layer = count

    def raw(self, field: str) -> Any:
        return self._raw.get(field)

    def number(self, container: Map, key: str) -> Any:
        """A number that stands inside a slot's mapping; an expression is evaluated."""
        value = container.get(key)
        return (
            self._elaborator.evaluate(container, key, value, self.scope, whole=True)
            if isinstance(value, str)
            else value
        )

    def rounds_scope(self, index: int, times: int) -> Scope:
        return self.scope.child(index=index, times=times)

    def body_in(
        self,
        container: Map | Seq,
        key: Any,
        field: str,
        scope: Scope,
        streams: tuple[Stream, ...],
        names: tuple[str, ...],
    ) -> Graph:
        """Elaborates a body that stands elsewhere than directly in the slot, as one of a list of rounds."""
        return self._elaborator.body(container, key, streams, names, self._frame, scope, self._node.kind.slots[field])

    def round_in(self, container: Map | Seq, key: Any, scope: Scope, streams: tuple[Stream, ...]) -> Graph:
        """Elaborates the body of a round, or takes it from another tree."""
        elaborator = self._elaborator
        known = elaborator.known
        if known is None or self._frame.parent is not None or (self.scope.parent and self.scope.parent.parent):
            return self.body_in(container, key, "body", scope, streams, self.names)
        place = (
            known.text(container[key]),
            (streams, self.names, self.inputs),
            tuple((name, tuple(node.outputs) if node else None) for name, node in self._frame.nodes.items()),
            tuple(self._frame.inputs),
            tuple((node.name, node.output.width, node.types) for node in elaborator.embeddings),
        )
        found = known.recall(place, self._frame)
        if found is not None:
            elaborator.layer += found.layers
            elaborator.called |= found.called
            return found.graph
        called, elaborator.called = elaborator.called, set()
        before, problems = elaborator.layer, len(elaborator.problems)
        try:
            graph = self.body_in(container, key, "body", scope, streams, self.names)
        finally:
            mine = frozenset(elaborator.called)
            elaborator.called |= called
        if not scope.touched and len(elaborator.problems) == problems:
            read = {name: graph.inputs[name] for name in graph.outer}
            known.keep(place, Round(graph, elaborator.layer - before, mine, read))
        return graph


class Broken(Exception):
    """The node reads a stream whose own node failed; nothing more can be said about it."""


__all__ = ["Broken", "Place", "Ref"]
