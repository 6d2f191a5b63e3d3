"""From a marked tree to a typed graph.

Names are resolved, expressions evaluated, sugar expanded, rounds unrolled and types inferred in one pass from the
interface to the outputs, because a number may depend on the width that an edge brings. Every independent problem of
the file is reported; what depends on a failed node is not.
"""

from __future__ import annotations

import types as python_types
import typing
from collections.abc import Callable, Iterator
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError

from archspec import expressions
from archspec.errors import Mark, Problem, Refused, SpecError, did_you_mean
from archspec.graph import Graph, Node, Ref
from archspec.kind import REGISTRY, Kind, Matrix, Slot, kinds_of, lookup
from archspec.place import Broken, Place
from archspec.scope import Frame, Scope
from archspec.source import Map, Seq, below
from archspec.streams import SCALAR, Stream

NODE_KEYS = ("kind", "name", "from", "when", "weights")
MAX_ROUNDS = 4096


class Elaborator:
    """Elaborates the graph of one file.

    Args:
        blocks: the file's named blocks.
        interface: the elaborated interface, for kinds that ask what the model is for.
        layers: how many layers the file has, once known; ``depth`` runs from 0 to 1 over them.
    """

    def __init__(self, blocks: Map, interface: Kind | None, layers: int = 1) -> None:
        self.blocks, self.interface, self.layers = blocks, interface, layers
        self.problems: list[Problem] = []
        self.embeddings: list[Node] = []
        self.layer = 0
        self.depth_read = False

    # --- errors -----------------------------------------------------------------------------------------------------

    def problem(self, container: Map | Seq, key: str | int, cause: str, hint: str | None = None) -> None:
        mark = container.where(key)  # type: ignore[arg-type]
        path = below(container.path, key) if key != "" else container.path
        self.problems.append(Problem(cause, hint, path, mark))

    def depth(self) -> float:
        self.depth_read = True
        return min(1.0, max(0, self.layer - 1) / max(1, self.layers - 1))

    def is_node(self, text: str) -> bool:
        """Whether a word names a block or a kind."""
        return text in self.blocks or text in REGISTRY

    # --- bodies -----------------------------------------------------------------------------------------------------

    def body(
        self, container: Map | Seq, key: Any, streams: tuple[Stream, ...], names: tuple[str, ...],
        outer: Frame | None, scope: Scope, slot: Slot | None,
    ) -> Graph:  # fmt: skip
        """Elaborates what stands at ``container[key]`` as a graph with the given inputs.

        Errors:
            Broken: something inside failed; the problem is recorded.
        """
        raw = container[key]
        if isinstance(raw, Map) and set(raw) == {"each"} and isinstance(raw["each"], Seq):
            container, key = self.turn(raw, container, key, scope)
            raw = container[key]
        raw, scope = self.unfold(raw, container, key, scope)
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
                nodes[number] = self.node(raws[number], names[number], previous, frame, scope, slot, nodes)
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
                container, key = (raw, name) if isinstance(raw, Map) else (declared, "outputs")
                self.problem(container, key, f"no stream is called {text!r}", did_you_mean(text, frame.names()))
                continue
            if found[1] is None:
                raise Broken
            result[name] = found[0]
            if when.get(found[0].node) == "training":
                training.add(name)
        if result and len(training) == len(result):
            container, key = (declared, "outputs") if declared is not None and raw is not None else (items, len(items) - 1)
            self.problem(container, key, "a training-only node cannot be the output", "name another under outputs:")  # type: ignore[arg-type]
        return result, frozenset(training)

    def node_names(self, raws: list[Map], frame: Frame) -> list[str]:
        """The names of nodes: as written, else the kind's or block's, numbered when they repeat."""
        taken: dict[str, int] = {}
        names = []
        for raw in raws:
            given = raw.get("name")
            name = given if given is not None else str(raw.get("kind", "node")).replace("/", "_")
            if given is not None:
                if not isinstance(name, str) or not name.isidentifier():
                    self.problem(raw, "name", f"{name!r} is no name", "letters, digits and _, not starting with a digit")
                    name = "node"
                elif given in taken or given in frame.inputs:
                    self.problem(raw, "name", f"{given!r} is bound twice in this graph", "give each node its own name")
            taken[name] = taken.get(name, 0) + 1
            while taken[name] > 1 and f"{name}_{taken[name]}" in taken:
                taken[name] += 1
            names.append(name if taken[name] == 1 else f"{name}_{taken[name]}")
        return names

    def order(self, raws: list[Map], names: list[str], items: Seq) -> list[int]:
        """Positions in an order in which every node comes after those that it reads."""
        place = {name: number for number, name in enumerate(names)}
        needs: dict[int, set[int]] = {}
        forward = False
        for number, raw in enumerate(raws):
            heads = {text.split(".")[0] for text in _words(raw.get("from"))}
            kind = lookup(raw["kind"]) if isinstance(raw.get("kind"), str) else None
            for slot in kind.slots if kind else ():
                inside = {text.split(".")[0] for text in _words(raw.get(slot))}
                heads |= {head for head in inside if head != names[number] and not self.is_node(head)}
            needs[number] = {place[head] for head in heads if head in place}
            if "from" not in raw and number and self.arity(raw)[1] > 0:
                needs[number].add(number - 1)
            forward = forward or any(other >= number for other in needs[number])
        if not forward:
            return list(range(len(raws)))
        try:
            return list(TopologicalSorter(needs).static_order())
        except CycleError as error:
            ring = error.args[1]
            where = max(ring)
            self.problem(items, where, f"a cycle: {' reads '.join(names[n] for n in reversed(ring))}",
                         "a stream that comes back belongs into a loop, or into the interface's state")  # fmt: skip
            raise Broken from None

    def arity(self, raw: Map) -> tuple[int, int]:
        kind = lookup(raw.get("kind", ""))  # type: ignore[arg-type]
        return kind.arity if kind else (1, 99)

    # --- nodes ------------------------------------------------------------------------------------------------------

    def as_map(self, raw: Any, container: Map | Seq, key: Any) -> Map:
        """A node as a mapping: a word is a kind or block with its defaults, a list a sequence."""
        mark, path = container.where(key), below(container.path, key)
        if isinstance(raw, Map):
            if "choose" in raw or "range" in raw:
                self.problem(container, key, "a choice belongs into a space", "start the file with archspace: 1")
                raise Broken
            if "graph" in raw and "kind" not in raw:
                node = Map(mark=raw.mark, path=raw.path)
                node.put("kind", "sequence", mark, mark)
                for known in ("name", "from", "when", "weights"):
                    if known in raw:
                        node.put(known, raw[known], raw.key_marks.get(known), raw.value_marks.get(known))
                node.put("body", raw.move(*(k for k in raw if k not in NODE_KEYS)), mark, mark)
                return node
            if "kind" not in raw and "weights" not in raw:
                self.problem(container, key, "a node needs a kind", "write kind: …, or the name of a block")
                raise Broken
            return raw
        result = Map(mark=mark, path=path)
        if isinstance(raw, Seq):
            result.put("kind", "sequence", mark, mark)
            result.put("body", raw, mark, mark)
        elif isinstance(raw, str):
            result.put("kind", raw, mark, mark)
        else:
            self.problem(container, key, f"{raw!r} is no node", "a node is a name, a mapping with kind:, or a list of nodes")
            raise Broken
        return result

    def unfold(self, raw: Any, container: Map | Seq, key: Any, scope: Scope) -> tuple[Any, Scope]:
        """Follows names of blocks to what they stand for, binding their parameters."""
        while True:
            if isinstance(raw, str) and raw in self.blocks:
                raw, scope = self.call(Map({"kind": raw}, container.where(key), below(container.path, key)), scope)
            elif isinstance(raw, Map) and isinstance(raw.get("kind"), str) and raw["kind"] in self.blocks:
                raw, scope = self.call(raw, scope)
            else:
                return raw, scope
            container, key = Seq([raw]), 0

    def call(self, raw: Map, scope: Scope) -> tuple[Any, Scope]:
        """A block's definition, and the scope in which its parameters are bound."""
        name = raw["kind"]
        definition = self.blocks[name]
        if scope.inside(name):
            self.problem(raw, "kind", f"block {name!r} contains itself", "a block that repeats itself is a loop")
            raise Broken
        inner = scope.child()
        inner.block = name
        parameters = definition.get("parameters", Map()) if isinstance(definition, Map) else Map()
        if not isinstance(parameters, Map):
            self.problem(definition, "parameters", "parameters are a mapping from names to default values")
            raise Broken
        for key in raw:
            if key not in parameters and key not in NODE_KEYS:
                hint = did_you_mean(key, [*parameters, *NODE_KEYS]) if parameters else "this block has no parameters"
                self.problem(raw, key, f"block {name!r} has no parameter {key!r}", hint)
        for key in parameters:
            source = raw if key in raw else parameters
            inner.values_[key] = self.number_or_word(source, key, scope if key in raw else inner)
        if isinstance(definition, Map):
            if "defaults" in definition and isinstance(definition["defaults"], Map):
                inner.defaults = dict(definition["defaults"])
            definition = definition.move(*(k for k in definition if k not in ("parameters", "defaults")))
            if "graph" not in definition and "kind" not in definition:
                self.problem(self.blocks, name, f"block {name!r} has neither kind: nor graph:")
                raise Broken
        return definition, inner

    def number_or_word(self, container: Map, key: str, scope: Scope) -> Any:
        value = container[key]
        if isinstance(value, str):
            known = expressions.names(value)
            if value and known <= set(scope) and (known or value[0] in "-(0123456789"):
                return self.evaluate(container, key, value, scope)
        return value

    def expanded(self, raw: Map, scope: Scope, slot: Slot | None) -> Seq | None:
        """The nodes that a piece of sugar stands for, or None."""
        kind = lookup(raw.get("kind", ""))  # type: ignore[arg-type]
        expand = getattr(kind, "expand", None)
        if kind is None or expand is None:
            return None
        if getattr(kind, "layer", False):
            self.layer += 1
        instance = self.validated(raw, kind, self.values(raw, kind, scope))
        items: Seq = expand(instance, raw)
        return items

    def node(
        self, raw: Map, name: str, previous: list[str], frame: Frame, scope: Scope, slot: Slot | None,
        siblings: dict[int, Node],
    ) -> Node:  # fmt: skip
        """Elaborates one node.

        Errors:
            Broken: its problem is recorded, or lies in what it reads.
        """
        shares = None
        if "weights" in raw:
            raw, shares = self.shared(raw, frame)
        if not isinstance(raw.get("kind"), str):
            self.problem(raw, "kind", "kind must be a word")
            raise Broken
        called = raw
        definition, inner = self.unfold(raw, Seq([raw]), 0, scope)
        if definition is not raw:
            if isinstance(definition, str):
                definition = self.as_map(definition, Seq([definition], raw.mark, raw.path), 0)
            if isinstance(definition, Seq) or "kind" not in definition:
                body = definition
                definition = Map(mark=raw.mark, path=raw.path)
                definition.put("kind", "sequence", raw.mark, raw.mark)
                definition.put("body", body, raw.mark, raw.mark)
            raw, scope = definition, inner
        kind = lookup(raw["kind"])
        if kind is None:
            self.unknown_kind(raw, slot, frame)
            raise Broken
        if slot is not None and not set(kind.roles) & set(slot.roles):
            fits = kinds_of(*slot.roles)
            self.problem(raw, "kind", f"{kind.name_} is no {' or '.join(slot.roles)}", f"try {', '.join(fits[:8])}")
            raise Broken
        if slot is None and "body" not in kind.roles:
            self.problem(raw, "kind", f"{kind.name_} is a {kind.roles[0]}, not a node of a graph",
                         f"it belongs into a slot for a {kind.roles[0]}")  # fmt: skip
            raise Broken
        raw = self.wrapped(raw, kind, scope)
        kind = REGISTRY[raw["kind"]]
        refs, streams = self.inputs(called, kind, previous, frame, inner)
        if hasattr(kind, "expand"):
            raw = self.sugar(raw, kind, scope)
            kind = REGISTRY["sequence"]
        number_scope = scope.child()
        if streams and streams[0] is not None:
            number_scope.values_["width_in"] = streams[0].width
            number_scope.values_ |= {a.name: a.size for s in streams[0].spans for a in s.axes if isinstance(a.size, int)}
        raw = self.with_defaults(raw, kind)
        instance = self.validated(raw, kind, self.values(raw, kind, number_scope))
        if any(stream is None for stream in streams):
            raise Broken
        known = tuple(stream for stream in streams if stream is not None)
        when = called.get("when", "always")
        if when not in ("always", "training"):
            self.problem(called, "when", f"{when!r} is no time", "when: training, or leave it out")
            raise Broken
        node = Node(name, instance, tuple(refs), known, {}, when=when, shares=shares, path=called.path, raw=called)
        if when != "training":
            self.no_training(called, refs, frame)
        try:
            outputs = instance.infer(Place(self, node, raw, frame, number_scope))
        except Refused as refused:
            self.refused(raw, refused)
            raise Broken from None
        node.outputs = outputs if isinstance(outputs, dict) else {"": outputs}
        if kind.name_ == "token_embedding" and frame.parent is None:
            self.embeddings.append(node)
        if any(_has_loss(body) for body in node.bodies.values()):
            node.outputs.setdefault("loss", SCALAR)
        return node

    def with_defaults(self, raw: Map, kind: type[Kind]) -> Map:
        """The node with the defaults of its empty slots written out."""
        missing = {f: kind.model_fields[f].default for f in kind.slots if f not in raw}
        missing = {field: default for field, default in missing.items() if isinstance(default, str)}
        if not missing:
            return raw
        result = Map(raw)
        for field, default in missing.items():
            result.put(field, default, raw.mark, raw.mark)
        return result

    def embedding(self, width: int, rows: int, field: str) -> str:
        """The name of the one embedding with a table of this shape, for a head that is tied to it."""
        fits = [node for node in self.embeddings if node.output.width == width and _rows(node) == rows]
        if len(fits) == 1:
            return fits[0].name
        shapes = ", ".join(f"{_rows(node)} × {node.output.width}" for node in self.embeddings) or "none"
        raise Refused("tied", f"tied to which embedding? needed {rows} × {width}, there are: {shapes}", "tied: false")

    def no_training(self, raw: Map, refs: list[Ref], frame: Frame) -> None:
        for ref in refs:
            node = frame.nodes.get(ref.node)
            if node is not None and node.when == "training":
                self.problem(raw, "from" if "from" in raw else "kind", f"{ref.node!r} exists only in training",
                             "add when: training here too")  # fmt: skip
                raise Broken

    def sugar(self, raw: Map, kind: type[Kind], scope: Scope) -> Map:
        """A node of sugar as a sequence of what it stands for."""
        items = self.expanded(raw, scope, None)
        result = Map(mark=raw.mark, path=raw.path)
        result.put("kind", "sequence", raw.mark, raw.mark)
        result.put("body", items, raw.mark, raw.mark)
        return result

    def wrapped(self, raw: Map, kind: type[Kind], scope: Scope) -> Map:
        """A norm under a default that wraps norms."""
        default = scope.default("norm") if "norm" in kind.roles and not kind.wraps else None
        if not isinstance(default, Map) or not (wrapper := lookup(default.get("kind", ""))) or not wrapper.wraps:
            return raw
        result = Map(default)
        result.put("body", raw.move(*(key for key in raw if key not in ("name", "from", "when"))), raw.mark, raw.mark)
        for key in ("name", "from", "when"):
            if key in raw:
                result.put(key, raw[key], raw.key_marks.get(key), raw.value_marks.get(key))
        return result

    def shared(self, raw: Map, frame: Frame) -> tuple[Map, str]:
        """A node that uses another's weights: that node's description with this one's name and inputs."""
        target = raw["weights"]
        node = frame.nodes.get(target) if isinstance(target, str) else None
        if node is None:
            self.problem(raw, "weights", f"no node before this one in the same graph is called {target!r}",
                         did_you_mean(str(target), frame.nodes))  # fmt: skip
            raise Broken
        source = node.raw
        result = Map(source)
        for key in ("name", "from", "when"):
            result.pop(key, None)
        for key in raw:
            if key not in ("weights", "kind") and key not in ("name", "from", "when") and raw[key] != source.get(key):
                self.problem(raw, key, f"{key!r} is stated beside weights: {target}", "the node is described there")
        for key in ("name", "from", "when"):
            if key in raw:
                result.put(key, raw[key], raw.key_marks.get(key), raw.value_marks.get(key))
        return result, node.shares or target

    def unknown_kind(self, raw: Map, slot: Slot | None, frame: Frame) -> None:
        word = raw["kind"]
        fitting = kinds_of(*slot.roles) if slot else kinds_of("body")
        streams = frame.names() if slot and slot.stream else []
        hint = did_you_mean(word, [*fitting, *self.blocks, *streams]) or did_you_mean(word, REGISTRY)
        self.problem(raw, "kind", f"no kind or block is called {word!r}", hint or "archc kinds lists the kinds")

    def inputs(
        self, raw: Map, kind: type[Kind], previous: list[str], frame: Frame, scope: Scope
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
        for number, text in enumerate(texts):
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
            self.problem(raw, "from" if "from" in raw else "kind", f"{kind.name_} takes {wants} {word}, not {len(refs)}")
            raise Broken
        return refs, streams

    # --- fields -----------------------------------------------------------------------------------------------------

    def keys(self, raw: Map, known: tuple[str, ...]) -> None:
        for key in raw:
            if key not in known:
                self.problem(raw, key, f"unknown field {key!r}", did_you_mean(key, known))

    def values(self, raw: Map, kind: type[Kind], scope: Scope) -> dict[str, Any]:
        """The node's own fields, expressions evaluated; slots stay as they are."""
        mine = scope.child()
        values: dict[str, Any] = {}
        for key in kind.model_fields:
            if key not in raw:
                continue
            if key in kind.slots:
                values[key] = raw[key]
                continue
            values[key] = self.value(raw, key, _shape(kind, key), mine)
            if isinstance(values[key], (int, float)):
                mine.values_[key] = values[key]
        for key in raw:
            if key not in kind.model_fields and key not in NODE_KEYS:
                self.problem(raw, key, f"unknown field {key!r} of {kind.name_}", did_you_mean(key, kind.model_fields))
        return values

    def value(self, container: Map | Seq, key: Any, shape: _Shape, scope: Scope) -> Any:
        raw = container[key]
        if isinstance(raw, Map) and set(raw) == {"each"} and isinstance(raw["each"], Seq):
            return self.value(*self.turn(raw, container, key, scope), shape, scope)
        if isinstance(raw, Map) and ("choose" in raw or "range" in raw):
            self.problem(container, key, "a choice belongs into a space", "start the file with archspace: 1")
            raise Broken
        if isinstance(raw, str) and shape.numeric and raw not in shape.words:
            return self.evaluate(container, key, raw, scope, whole=shape.whole)
        if isinstance(raw, Map):
            return {name: self.value(raw, name, shape.inner, scope) for name in raw}
        if isinstance(raw, Seq):
            return [self.value(raw, number, shape.inner, scope) for number in range(len(raw))]
        if isinstance(raw, float) and shape.whole and raw.is_integer():
            return int(raw)
        return raw

    def turn(self, raw: Map, container: Map | Seq, key: Any, scope: Scope) -> tuple[Seq, int]:
        """Where this round's value of an ``each:`` stands."""
        if "index" not in scope:
            self.problem(container, key, "each: needs rounds", "it belongs into the body of a repeat or loop")
            raise Broken
        listed: Seq = raw["each"]
        if len(listed) != scope["times"]:
            self.problem(raw, "each", f"{len(listed)} values for {scope['times']} rounds")
            raise Broken
        return listed, scope["index"]

    def evaluate(self, container: Map | Seq, key: Any, text: str, scope: Scope, whole: bool = False) -> Any:
        try:
            value = expressions.evaluate(text, scope)
        except expressions.ExpressionError as error:
            hint = did_you_mean(error.unknown, [*scope, *expressions.FUNCTIONS]) if error.unknown else None
            self.problem(container, key, str(error), hint)
            raise Broken from None
        if whole and isinstance(value, float):
            if not value.is_integer():
                self.problem(container, key, f"{text!r} is {value:g}, not a whole number", f"try floor({text})")
                raise Broken
            value = int(value)
        return value

    def validated(self, raw: Map, kind: type[Kind], values: dict[str, Any]) -> Kind:
        try:
            return kind.model_validate(values)
        except ValidationError as error:
            for detail in error.errors():
                self.invalid(raw, kind, detail)
            raise Broken from None

    def invalid(self, raw: Map, kind: type[Kind], detail: Any) -> None:
        """One problem for one pydantic error: union tags stripped, the deepest place that the file knows."""
        container: Map | Seq = raw
        key: Any = detail["loc"][0] if detail["loc"] else ""
        for part in detail["loc"][1:]:
            inner = container[key] if isinstance(container, Map) and key in container else None
            if isinstance(inner, Map) and part in inner or isinstance(inner, Seq) and isinstance(part, int):
                container, key = inner, part
        if any(p.path == below(container.path, key) for p in self.problems):
            return  # a union reports each of its members
        cause, hint = _explain(detail, key)
        self.problem(container, key, cause, hint)

    def refused(self, raw: Map, refused: Refused) -> None:
        container: Map | Seq = raw
        parts = refused.field.split(".")
        for part in parts[:-1]:
            if isinstance(container, Map) and isinstance(container.get(part), (Map, Seq)):
                container = container[part]
        self.problem(container, parts[-1] if parts[-1] in raw or container is not raw else (parts[-1] or "kind"),
                     refused.cause, refused.hint)  # fmt: skip

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


def _rows(node: Node) -> int:
    return getattr(node.kind, "vocab", None) or node.types[0].width


def _has_loss(graph: Graph) -> bool:
    return any("loss" in node.outputs for node in graph.nodes)


def _words(raw: Any) -> Iterator[str]:
    if isinstance(raw, str):
        yield raw
    elif isinstance(raw, dict):
        for value in raw.values():
            yield from _words(value)
    elif isinstance(raw, list):
        for value in raw:
            yield from _words(value)


class _Shape:
    """What may stand in a field: numbers (then text is an expression), words, and what is inside a collection."""

    def __init__(self, annotation: Any) -> None:
        kinds = set(_flat(annotation))
        self.numeric = bool(kinds & {int, float})
        self.whole = int in kinds and float not in kinds
        self.words = {word for item in kinds if get_origin(item) is Literal for word in get_args(item)}
        self.numeric = self.numeric and str not in kinds
        self._annotation = annotation

    @property
    def inner(self) -> _Shape:
        return self  # a collection of numbers takes expressions as its items


def _flat(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin is typing.Annotated:
        yield from _flat(get_args(annotation)[0])
    elif origin in (typing.Union, python_types.UnionType, list, dict, tuple):
        for item in get_args(annotation):
            yield from _flat(item)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for field in annotation.model_fields.values():
            yield from _flat(field.annotation)
    else:
        yield annotation


@lru_cache(maxsize=None)
def _shape(kind: type[Kind], key: str) -> _Shape:
    return _Shape(kind.model_fields[key].annotation)


_TYPES = {"int": "a whole number", "float": "a number", "bool": "true or false", "string": "a word", "dict": "a mapping",
          "list": "a list"}  # fmt: skip


def _explain(detail: Any, key: str) -> tuple[str, str | None]:
    """A pydantic error in our words."""
    what, given, context = detail["type"], detail.get("input"), detail.get("ctx", {})
    shown = "a mapping" if isinstance(given, dict) else "a list" if isinstance(given, list) else repr(given)
    if what == "missing":
        return f"{key!r} is missing", f"add {key}: …"
    if what == "literal_error":
        words = [word.strip("'") for word in context["expected"].replace(" or ", ", ").split(", ")]
        return f"{shown} is none of the values of {key}", did_you_mean(str(given), words) or f"try {', '.join(words)}"
    for bound, word in (("greater_than_equal", "at least"), ("greater_than", "more than"), ("less_than_equal", "at most"),
                        ("less_than", "less than")):  # fmt: skip
        if what == bound:
            limit = next(iter(context.values()))
            return f"{shown} is out of range", f"{key} must be {word} {limit:g}"
    for start, name in _TYPES.items():
        if what.startswith(start + "_"):
            return f"{shown} is not {name}", None
    if what == "extra_forbidden":
        return f"unknown field {key!r}", None
    return f"{shown} does not fit: {detail['msg'][:1].lower()}{detail['msg'][1:]}", None


def raise_problems(problems: list[Problem]) -> None:
    """Raises what was found, in the order of the file."""
    if problems:
        raise SpecError(*sorted(problems, key=lambda p: p.mark or Mark("", 0, 0)))


__all__ = ["Elaborator", "Callable", "raise_problems"]
