"""From a marked tree to a typed graph.

Names are resolved, expressions evaluated, sugar expanded, rounds unrolled and types inferred in one pass from the
interface to the outputs, because a number may depend on the width that an edge brings. Every independent problem of
the file is reported; what depends on a failed node is not.
"""

from __future__ import annotations

from typing import Any

from archspec.errors import Refused, did_you_mean
from archspec.fields import by_round
from archspec.graph import Graph, Node, Ref
from archspec.kind import REGISTRY, Kind, Matrix, Slot, kinds_of, lookup
from archspec.ordering import numbered
from archspec.place import Broken, Place
from archspec.reuse import Rounds
from archspec.scope import Frame, Scope
from archspec.skim import Skimming
from archspec.source import Map, Seq
from archspec.streams import SCALAR, Stream


class Elaborator(Skimming):
    """Elaborates the graph of one file.

    Args:
        blocks: the file's named blocks.
        layers: how many layers the file has, once known.
        known: rounds of other files that have the same blocks, dims, defaults and interface.

    Attributes:
        interface: the elaborated interface, for kinds that ask what the model is for.
        embeddings: token embeddings of the top graph, to which heads may be tied.
    """

    def __init__(self, blocks: Map, layers: int = 1, known: Rounds | None = None) -> None:
        super().__init__(blocks, layers)
        self.known = known
        self.interface: Kind | None = None
        self.embeddings: list[Node] = []

    def body(
        self, container: Map | Seq, key: Any, streams: tuple[Stream, ...], names: tuple[str, ...],
        outer: Frame | None, scope: Scope, slot: Slot | None,
    ) -> Graph:  # fmt: skip
        """Elaborates what stands at ``container[key]`` as a graph with the given inputs.

        Errors:
            Broken: something inside failed; the problem is recorded.
        """
        raw = container[key]
        if by_round(raw):
            container, key = self.turn(raw, container, key, scope)
            raw = container[key]
        raw, scope = self.unfold(raw, container, key, scope)
        if isinstance(raw, Seq) and slot is not None and "body" not in slot.roles:
            self.problem(container, key, f"a list, where one {slot.roles[0]} is wanted")
            raise Broken
        if isinstance(raw, Map) and "graph" in raw and "kind" not in raw:
            return self.block(raw, streams, outer, scope)
        items = raw if isinstance(raw, Seq) else Seq([self.as_map(raw, container, key)], getattr(raw, "mark", None))
        if not isinstance(raw, Seq):
            items.path = container.path
            expanded = self.expanded(items[0], scope, slot)
            if expanded is not None:
                items = expanded
        labels = list(names[: len(streams)]) or ["x"]
        labels += [f"x{number}" for number in range(len(labels), len(streams))]
        words = [self.derived(item) for item in items]
        own = {*words, *numbered(words)}
        labels = [next(word for n in range(len(own) + 1) if (word := label + n * "_in") not in own) for label in labels]
        labels = [f"{label}_{n + 1}" if label in labels[:n] else label for n, label in enumerate(labels)]
        frame = Frame(outer, dict(zip(labels, streams, strict=True)))
        return self.sequence(items, frame, scope, len(streams), slot if not isinstance(raw, Seq) else None,
                             alone=not isinstance(raw, Seq))  # fmt: skip

    def block(self, raw: Map, streams: tuple[Stream, ...], outer: Frame | None, scope: Scope) -> Graph:
        """A body that names its inputs and outputs."""
        self.keys(raw, ("inputs", "graph", "outputs"))
        inputs = raw.get("inputs", Seq(["x"]))
        if not isinstance(inputs, Seq) or not all(isinstance(name, str) for name in inputs):
            self.problem(raw, "inputs", "inputs must be a list of names", "inputs: [x]")
            raise Broken
        if len(inputs) != len(streams):
            what = f"{len(inputs)} input{'s' * (len(inputs) != 1)} ({', '.join(inputs)})"
            self.problem(raw, "inputs", f"this block has {what} and is given {len(streams)}")
            raise Broken
        if not isinstance(raw["graph"], Seq):
            self.problem(raw, "graph", "a graph is a list of nodes")
            raise Broken
        frame = Frame(outer, dict(zip(inputs, streams, strict=True)))
        return self.sequence(raw["graph"], frame, scope, len(streams), None, raw)

    def sequence(
        self, items: Seq, frame: Frame, scope: Scope, given: int, slot: Slot | None, declared: Map | None = None,
        alone: bool = False,
    ) -> Graph:  # fmt: skip
        """Elaborates a list of nodes; each reads the one before it unless it says otherwise.

        The first reads the first input, or as many as it takes if the node stands alone instead of in a list.
        """
        raws = [self.as_map(item, items, number) for number, item in enumerate(items)]
        names = self.node_names(raws, frame)
        before = len(self.problems)
        nodes: dict[int, Node] = {}
        broken = False
        for number in self.order(raws, names, items):
            previous = [names[number - 1]] if number else list(frame.inputs)[: given if alone else 1]
            try:
                nodes[number] = self.node(raws[number], names[number], previous, frame, scope, slot)
                frame.nodes[names[number]] = nodes[number]
            except Broken:
                frame.nodes[names[number]] = None
                broken = True
        if broken or not raws:
            if not raws:
                self.problem(items, "", "an empty list of nodes")
            raise Broken
        ordered = list(nodes.values())
        outputs, training = self.outputs(declared, names[-1], frame, nodes, items)
        if len(self.problems) > before:
            raise Broken
        types = {name: self.type_of(ref, frame) for name, ref in outputs.items()}
        inputs = {name: stream for name, stream in frame.inputs.items() if stream is not None}
        return Graph(inputs, given, ordered, outputs, types, training)

    def type_of(self, ref: Ref, frame: Frame) -> Stream:
        found = frame.resolve(str(ref))
        assert found and found[1]
        return found[1]

    def outputs(
        self, declared: Map | None, last: str, frame: Frame, nodes: dict[int, Node], items: Seq
    ) -> tuple[dict[str, Ref], frozenset[str]]:
        raw = declared.get("outputs") if declared is not None else None
        texts: dict[str, str]
        if raw is None:
            texts = {last: last}
        elif isinstance(raw, str):
            texts = {raw: raw}
        elif isinstance(raw, Seq) and raw and all(isinstance(text, str) for text in raw):
            texts = {text.split(".")[-1] if text.split(".")[-1] not in raw else text: text for text in raw}
        elif isinstance(raw, Map) and raw and all(isinstance(text, str) for text in raw.values()):
            texts = dict(raw)
        else:
            assert declared is not None
            self.problem(declared, "outputs", "outputs are a name, a list of names, or a mapping from names to streams")
            raise Broken
        result: dict[str, Ref] = {}
        training = set()
        when = {node.name: node.when for node in nodes.values()}
        for name, text in texts.items():
            found = frame.resolve(text)
            if found is None:
                assert declared is not None
                place = (raw, name) if isinstance(raw, Map) else (declared, "outputs")
                self.problem(*place, f"no stream is called {text!r}", did_you_mean(text, frame.names()))
                continue
            if found[1] is None:
                raise Broken
            result[name] = found[0]
            if when.get(found[0].node) == "training":
                training.add(name)
        if result and len(training) == len(result):
            said = declared is not None and raw is not None
            self.problem(declared if said and declared is not None else items, "outputs" if said else len(items) - 1,
                         "a training-only node cannot be the output", "name another under outputs:")  # fmt: skip
        return result, frozenset(training)

    def node(self, raw: Map, name: str, previous: list[str], frame: Frame, scope: Scope, slot: Slot | None) -> Node:
        """Elaborates one node.

        Errors:
            Broken: its problem is recorded, or lies in what it reads.
        """
        shares, described = None, isinstance(raw.get("weights"), Map)
        if "weights" in raw:
            raw, shares = self.shared(raw, frame)
        if not isinstance(raw.get("kind"), str):
            self.problem(raw, "kind", "kind must be a word")
            raise Broken
        called = raw
        raw, inner = self.defined(raw, scope)
        kind = self.kind_at(raw, slot, frame)
        raw = self.wrapped(raw, kind, inner)
        kind = REGISTRY[raw["kind"]]
        refs, streams = self.inputs(called, kind, previous, frame)
        if hasattr(kind, "expand"):
            raw = self.sugar(raw, kind, inner)
            kind = REGISTRY["sequence"]
        numbers = inner.child()
        if streams and streams[0] is not None:
            sizes = {axis.name: axis.size for span in streams[0].spans for axis in span.axes}
            numbers.values_ = {"width_in": streams[0].width} | {n: s for n, s in sizes.items() if isinstance(s, int)}
        elif streams:
            numbers.values_ = {"width_in": _broken}
        raw = self.with_defaults(raw, kind)
        known = tuple(stream for stream in streams if stream is not None)
        before = len(self.problems)
        try:
            instance = self.validated(raw, kind, self.values(raw, kind, numbers))
            if len(known) < len(streams) or len(self.problems) > before:
                raise Broken
            when = self.time_of(called, refs, frame)
            node = Node(name, instance, tuple(refs), known, {}, when=when, shares=shares, path=called.path, raw=called)
            owner = None if shares is None else frame.nodes[shares]
            node.described = described
            node.unlike = described or (owner is not None and owner.types != known)
            outputs = instance.infer(Place(self, node, raw, frame, numbers))
        except Refused as refused:
            self.refused(raw, refused)
            self.skim_slots(raw, kind, inner)
            raise Broken from None
        except Broken:
            if len(known) < len(streams) or len(self.problems) > before:
                self.skim_slots(raw, kind, inner)
            raise
        ports = outputs if isinstance(outputs, dict) else {"": outputs}
        node.outputs = ports if kind.carries else {port: s.knowing(*_sources(node)) for port, s in ports.items()}
        if kind.name_ == "token_embedding" and frame.parent is None and shares is None:
            self.embeddings.append(node)
        if any(_has_loss(body) for body in node.bodies.values()):
            node.outputs.setdefault("loss", SCALAR)
        return node

    def defined(self, raw: Map, scope: Scope) -> tuple[Map, Scope]:
        """What a node stands for, as one mapping with a kind, and the scope of its numbers."""
        definition, inner = self.unfold(raw, Seq([raw], raw.mark), 0, scope)
        if definition is raw:
            return raw, scope
        if isinstance(definition, str):
            definition = self.as_map(definition, Seq([definition], raw.mark, raw.path), 0)
        if isinstance(definition, Map) and "kind" in definition:
            return definition, inner
        result = Map(mark=raw.mark, path=raw.path)
        result.put("kind", "sequence", raw.mark, raw.mark)
        result.put("body", definition, raw.mark, raw.mark)
        return result, inner

    def kind_at(self, raw: Map, slot: Slot | None, frame: Frame) -> type[Kind]:
        """The kind of a node, if it may stand here."""
        kind = lookup(raw["kind"])
        if kind is None:
            self.unknown_kind(raw, slot, frame.names())
            raise Broken
        if slot is not None and not set(kind.roles) & set(slot.roles):
            fits = kinds_of(*slot.roles)
            self.problem(raw, "kind", f"{kind.name_} is no {' or '.join(slot.roles)}", f"try {', '.join(fits[:8])}")
            raise Broken
        if slot is None and "body" not in kind.roles:
            role = kind.roles[0]
            hint = f"it belongs into a slot for a {role}"
            self.problem(raw, "kind", f"{kind.name_} is a {role}, not a node of a graph", hint)
            raise Broken
        return kind

    def time_of(self, raw: Map, refs: list[Ref], frame: Frame) -> str:
        """When a node exists; one that exists always cannot read one that exists only in training."""
        when: str = raw.get("when", "always")
        if when not in ("always", "training"):
            self.problem(raw, "when", f"{when!r} is no time", "when: training, or leave it out")
            raise Broken
        for ref in refs if when == "always" else ():
            node = frame.nodes.get(ref.node)
            if node is not None and node.when == "training":
                key = "from" if "from" in raw else "kind"
                self.problem(raw, key, f"{ref.node!r} exists only in training", "add when: training here too")
                raise Broken
        return when

    def inputs(
        self, raw: Map, kind: type[Kind], previous: list[str], frame: Frame
    ) -> tuple[list[Ref], list[Stream | None]]:
        least, most = kind.arity
        if "from" not in raw:
            if most == 0:
                return [], []
            texts: Any = Seq(previous[:most])
        else:
            texts = raw["from"] if isinstance(raw["from"], Seq) else Seq([raw["from"]], raw.where("from"), raw.path)
        refs: list[Ref] = []
        streams: list[Stream | None] = []
        for text in texts:
            found = frame.resolve(text) if isinstance(text, str) else None
            if found is None:
                hint = did_you_mean(str(text), frame.names())
                self.problem(raw, "from", f"no stream is called {text!r}", hint)
                raise Broken
            refs.append(found[0])
            streams.append(found[1])
        if not least <= len(refs) <= most:
            wants = f"{least}" if least == most else f"{least} or more" if most > 90 else f"{least} to {most}"
            word = "input" if wants == "1" else "inputs"
            self.problem(
                raw, "from" if "from" in raw else "kind", f"{kind.name_} takes {wants} {word}, not {len(refs)}"
            )
            raise Broken
        return refs, streams

    def embedding(self, width: int, rows: int, name: str | None) -> str:
        """The name of the one embedding with a table of this shape, for a head that is tied to it."""
        fits = [node.name for node in self.embeddings if node.output.width == width and _rows(node) == rows]
        if name in fits or (name is None and len(fits) == 1):
            return name or fits[0]
        shapes = ", ".join(f"{_rows(node)} × {node.output.width} ({node.name})" for node in self.embeddings) or "none"
        cause = f"{name} is no embedding of" if name else "tied to which embedding? needed"
        hint = f"tied: {fits[0]}" if fits else "tied: false"
        raise Refused("tied", f"{cause} {rows} × {width}, there are: {shapes}", hint)

    def matrix(self, at: Place, role: str, matrix: Matrix) -> Node | None:
        """The node that replaces a plain weight matrix, or None."""
        raw: Map = at._raw
        named = raw.get("linears")
        container, key = (named, role) if isinstance(named, Map) and role in named else (raw, "linear")
        if container.get(key) is None:
            default = at.scope.default("linear")
            if default is None:
                return None
            container, key = Map({"linear": default}, raw.mark, raw.path), "linear"
        if container[key] == "linear":
            return None
        inner = at.scope.child(outputs=matrix.outputs, bias=matrix.bias)
        definition = self.as_map(container[key], container, key)
        kind = lookup(definition["kind"])
        if kind is None or "linear" not in kind.roles:
            self.problem(definition, "kind", f"no kind of weight matrix is called {definition['kind']!r}",
                         did_you_mean(definition["kind"], kinds_of("linear")))  # fmt: skip
            raise Broken
        instance = self.validated(definition, kind, self.values(definition, kind, inner))
        source = at.inputs[0].wide(matrix.inputs) if at.inputs else Stream(matrix.inputs, ())
        node = Node(role, instance, (Ref("x"),), (source,), {"": source.wide(matrix.outputs)},
                    path=definition.path, raw=definition)  # fmt: skip
        try:
            instance.fit(matrix, source)  # type: ignore[attr-defined]
        except Refused as refused:
            self.refused(definition, refused)
            raise Broken from None
        return node


def _sources(node: Node) -> list[Stream]:
    """The streams that a node's outputs are made of; scores that are masked again tell nothing of the future."""
    bodies = [stream for body in node.bodies.values() for stream in body.types.values()]
    outer = [stream for name, stream in node.outer_types.items() if name != node.streams.get("score_bias")]
    return [*node.types, *bodies, *outer]


def _broken() -> float:
    """The width of an input whose node failed."""
    raise Broken


def _rows(node: Node) -> int:
    return getattr(node.kind, "vocab", None) or node.types[0].width


def _has_loss(graph: Graph) -> bool:
    return any("loss" in node.outputs for node in graph.nodes)
