"""The typed graph that a spec becomes: nodes, the bodies in their slots, and the content hashes of both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Any, Literal, NamedTuple

from archspec.kind import Kind, Matrix
from archspec.moving import Moving
from archspec.source import Map
from archspec.streams import Stream

Identity = Literal["structure", "full", "layout"]
"""``structure`` ignores initialisation, rates and training-only nodes; ``full`` ignores nothing that trains;
``layout`` is ``structure`` with the names that parameters derive from."""


class Ref(NamedTuple):
    """A stream in a graph: an input or a node, one of its ports, one of its spans."""

    node: str
    port: str = ""
    span: str = ""

    def __str__(self) -> str:
        return ".".join(part for part in self if part)


@dataclass(eq=False)
class Node:
    """A kind at its place.

    Attributes:
        inputs: the streams it is given, refs into its own graph.
        outputs: types by port; ``""`` is the main one.
        bodies: elaborated slots, by field (``experts.0`` for the first of a list).
        matrices: its weight matrices and the bodies that replace plain ones.
        outer: streams that its slots read by name, as refs into its own graph; ``outer_types`` are their types.
        streams: slots that hold a stream: field to name in ``outer``.
        reads: ports that somebody reads.
        shares: the node of the same graph whose weights it uses; ``described`` where it is not as that node is,
            ``unlike`` where it is run by itself, since it is not or reads other types.
        tied: the path of the embedding whose table it uses.
    """

    name: str
    kind: Kind
    inputs: tuple[Ref, ...]
    types: tuple[Stream, ...]
    outputs: dict[str, Stream]
    bodies: dict[str, Graph] = field(default_factory=dict)
    matrices: dict[str, tuple[Matrix, Node | None]] = field(default_factory=dict)
    outer: dict[str, Ref] = field(default_factory=dict)
    outer_types: dict[str, Stream] = field(default_factory=dict)
    streams: dict[str, str] = field(default_factory=dict)
    reads: set[str] = field(default_factory=set)
    when: str = "always"
    shares: str | None = None
    described: bool = False
    unlike: bool = False
    tied: str | None = None
    path: str = ""
    raw: Map = field(default_factory=Map)

    @property
    def output(self) -> Stream:
        return self.outputs[""]

    @cached_property
    def apart(self) -> bool:
        """Whether some of its parameters are its own where it uses the weights of another node."""
        return any(child.kind.own or child.apart for child in self.children())

    @property
    def home(self) -> str:
        """The node of the same graph whose module it is run by."""
        return self.name if self.shares is None or self.apart or self.unlike else self.shares

    def children(self) -> Iterator[Node]:
        """The nodes of its bodies and matrices."""
        for body in self.bodies.values():
            yield from body.nodes
        for _, node in self.matrices.values():
            if node is not None:
                yield node


@dataclass(eq=False)
class Graph:
    """Nodes in an order in which they can be computed.

    Attributes:
        inputs: types by name; the first ``given`` are handed over, the others are read from outside by name.
        outputs: refs by name, the first is the main one.
        training: names of the outputs that exist only in training.
    """

    inputs: dict[str, Stream]
    given: int
    nodes: list[Node]
    outputs: dict[str, Ref]
    types: dict[str, Stream]
    training: frozenset[str] = frozenset()
    _digests: dict[str, str] = field(default_factory=dict)

    @property
    def output(self) -> Stream:
        return next(iter(self.types.values()))

    @property
    def outer(self) -> list[str]:
        """Names that are read from outside."""
        return list(self.inputs)[self.given :]

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    @property
    def single(self) -> Node | None:
        """Its node, if the graph is no more than one node between its inputs and its output."""
        if len(self.nodes) != 1 or len(self.outputs) != 1:
            return None
        node = self.nodes[0]
        plain = node.inputs == tuple(Ref(name) for name in list(self.inputs)[: self.given][: len(node.inputs)])
        return node if plain and next(iter(self.outputs.values())) == Ref(node.name) else None

    @property
    def differs_in_training(self) -> bool:
        """Whether training computes more than inference: training-only nodes, auxiliary losses."""
        return any(
            node.when == "training"
            or "loss" in node.outputs
            or any(b.differs_in_training for b in node.bodies.values())
            for node in self.nodes
        )

    @cached_property
    def apart(self) -> bool:
        """Whether some of its parameters are its own where it uses the weights of another body."""
        return any(node.kind.own or node.apart for node in self.nodes)

    @cached_property
    def size(self) -> int:
        """Nodes in it and in its bodies, rounds counted one by one."""
        return len(self.nodes) + sum(body.size for node in self.nodes for body in node.bodies.values())

    @property
    def pointwise(self) -> bool:
        """Whether a token's output depends on that token's features alone."""
        return not self.outer and all(
            node.kind.pointwise and all(body.pointwise for body in node.bodies.values()) for node in self.nodes
        )

    def digest(self, identity: Identity) -> str:
        """A content hash, 32 hexadecimal digits."""
        known = self._digests.get(identity)
        if known is None:
            text = json.dumps(self._content(identity), sort_keys=True, separators=(",", ":"))
            known = self._digests[identity] = blake2b(text.encode(), digest_size=16).hexdigest()
        return known

    def _content(self, identity: Identity) -> Any:
        position = {name: str(number) for number, name in enumerate(self.inputs)}
        position |= {node.name: f"n{number}" for number, node in enumerate(self.nodes)}

        def place(ref: Ref) -> str:
            return str(Ref(position[ref.node], ref.port, ref.span))

        nodes = []
        for node in self.nodes:
            if identity == "structure" and node.when == "training":
                continue
            fields = _identified(node, identity)
            if isinstance(fields.get("tied"), str):  # which embedding it is, not what it is called
                fields["tied"] = position.get(str(node.tied), node.tied)
            nodes.append(
                [
                    node.kind.name_,
                    fields,
                    [place(ref) for ref in node.inputs],
                    {slot: body.digest(identity) for slot, body in node.bodies.items()},
                    {
                        role: [list(matrix), _alone(plan).digest(identity) if plan else None]
                        for role, (matrix, plan) in node.matrices.items()
                    },
                    [[name, place(ref)] for name, ref in sorted(node.outer.items())],
                    node.streams,
                    sorted(node.reads),
                    position[node.shares] if node.shares else None,
                    node.when,
                    [
                        [port, type_.text, type_.most]
                        for port, type_ in node.outputs.items()
                        if port in ("", *node.reads)
                    ],
                    node.name if identity == "layout" else None,
                ]
            )
        outputs = {
            name: place(ref)
            for name, ref in self.outputs.items()
            if identity != "structure" or name not in self.training
        }
        ends = list(outputs.items()) if len(outputs) > 1 or identity == "layout" else list(outputs.values())
        return [[stream.text for stream in self.inputs.values()], self.given, nodes, ends]


def _identified(node: Node, identity: Identity) -> dict[str, Any]:
    kind = node.kind
    if identity == "full" or not (kind.free or kind.moves):
        return settled(node)
    told = settled(node, final=identity == "structure")
    plain = {name: value for name, value in told.items() if name not in kind.free}
    if identity == "layout":  # a rate of zero is computed by leaving it out
        rates = {name: getattr(kind, name) for name in kind.free}
        plain |= {name: told[name] if isinstance(rate, Moving) else bool(rate) for name, rate in rates.items()}
    return plain


def settled(node: Node, *, final: bool = False) -> dict[str, Any]:
    """The plain fields of a node as they came out: defaults filled, one way to say each thing; without its slots.

    Empty ones are left out, so that a new field that is empty by default changes no hash.

    Args:
        final: a number that moves is told as the one that it ends at.
    """
    kind = node.kind
    values = fields(kind) | kind.settle(node)
    for name in kind.moves:
        if isinstance(moves := getattr(kind, name), Moving):
            values[name] = moves.course.final if final else moves.course.plain
    for name in kind.rare:
        if values.get(name) == type(kind).model_fields[name].default:
            values.pop(name, None)
    return {name: value for name, value in values.items() if value is not None and value != [] and value != {}}


def fields(kind: Kind, *, free: bool = True) -> dict[str, Any]:
    """The plain fields of a kind as they were given, defaults filled; without its slots."""
    values = kind.__dict__
    return {name: _plain(values[name]) for name in kind.plain if free or name not in kind.free}


def moving(graph: Graph) -> dict[str, Moving]:
    """The numbers that move while the model trains, by where they stand in the file; those of a body once."""
    found: dict[str, Moving] = {}
    stack, seen = [graph], set()
    while stack:
        inner = stack.pop()
        if id(inner) in seen:
            continue
        seen.add(id(inner))
        for node in inner.nodes:
            found |= {
                f"{node.path}.{name}": value
                for name in sorted(node.kind.moves)
                if isinstance(value := getattr(node.kind, name), Moving)
            }
            stack.extend(node.bodies.values())
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Moving):
        return value.course.plain
    if value is None or isinstance(value, (str, int, float)):
        return value
    if hasattr(value, "model_dump"):
        return value.model_dump(exclude_none=True)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _alone(node: Node) -> Graph:
    """A graph of one node, for its digest."""
    inputs = {ref.node: type_ for ref, type_ in zip(node.inputs, node.types, strict=True)}
    return Graph(inputs, len(inputs), [node], {node.name: Ref(node.name)}, {node.name: node.output})
