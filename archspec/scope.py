"""What names mean at a place: numbers (`Scope`) and streams (`Frame`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from archspec.graph import Node, Ref
from archspec.streams import Stream


class Scope(Mapping[str, Any]):
    """Numbers by name, looked up outwards.

    ``touched`` tells whether one of a round's own numbers was read, so that rounds in which none was are elaborated
    once.
    """

    def __init__(self, parent: Scope | None = None, values: Mapping[str, Any] | None = None) -> None:
        self.parent = parent
        self.values_ = dict(values or {})
        self.touched = False
        self.block: str | None = None
        self.defaults: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        scope: Scope | None = self
        passed = []
        while scope is not None:
            passed.append(scope)
            if name in scope.values_:
                value = scope.values_[name]
                if callable(value):  # the running depth differs at every place that reads it
                    for inner in passed:
                        inner.touched = True
                    return value()
                scope.touched = True
                return value
            scope = scope.parent
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        seen: set[str] = set()
        scope: Scope | None = self
        while scope is not None:
            yield from (name for name in scope.values_ if name not in seen)
            seen |= scope.values_.keys()
            scope = scope.parent

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def child(self, **values: Any) -> Scope:
        return Scope(self, values)

    def inside(self, block: str) -> bool:
        """Whether this place lies inside the named block."""
        scope: Scope | None = self
        while scope is not None:
            if scope.block == block:
                return True
            scope = scope.parent
        return False

    def default(self, role: str) -> Any:
        """What the nearest ``defaults:`` says for a role, or None."""
        scope: Scope | None = self
        while scope is not None:
            if role in scope.defaults:
                return scope.defaults[role]
            scope = scope.parent
        return None


class Frame:
    """The streams in reach inside one graph; names that it does not bind are captured from outside."""

    def __init__(self, parent: Frame | None, inputs: dict[str, Stream | None]) -> None:
        self.parent = parent
        self.inputs: dict[str, Stream | None] = dict(inputs)
        self.nodes: dict[str, Node | None] = {}  # None: its elaboration failed
        self.captured: dict[str, Ref] = {}

    def resolve(self, text: str) -> tuple[Ref, Stream | None] | None:
        """The stream of that name (``node``, ``node.port``, ``input.span``, ``rounds.3``); None if there is none.

        The type is None where the node's elaboration failed.
        """
        if text in self.captured:
            return Ref(text), self.inputs[text]
        head, *rest = text.split(".")
        if head in self.nodes:
            node = self.nodes[head]
            return (Ref(head), None) if node is None else _port(node, rest)
        if head in self.inputs:
            stream = self.inputs[head]
            return (Ref(head), None) if stream is None else _span(Ref(head), stream, rest)
        found = self.parent.resolve(text) if self.parent else None
        if found is None:
            return None
        self.captured[text], self.inputs[text] = found
        return Ref(text), found[1]

    def names(self) -> list[str]:
        """All names in reach."""
        return [*self.nodes, *self.inputs] + (self.parent.names() if self.parent else [])


def _port(node: Node, rest: list[str]) -> tuple[Ref, Stream] | None:
    for cut in range(len(rest), -1, -1):
        port = ".".join(rest[:cut])
        if port in node.outputs:
            found = _span(Ref(node.name, port), node.outputs[port], rest[cut:])
            if found:
                node.reads.add(port)
                return found
    return None


def _span(ref: Ref, stream: Stream, rest: list[str]) -> tuple[Ref, Stream] | None:
    if not rest:
        return ref, stream
    span = stream.span(rest[0]) if len(rest) == 1 else None
    return None if span is None else (ref._replace(span=span.name), stream.on(span).knowing(stream))
