"""A checked spec: its typed graph, its canonical form and its content hashes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cached_property
from hashlib import blake2b
from typing import Any

from archspec.canonical import canonical
from archspec.elaborate import Elaborator
from archspec.errors import Problem, Refused, SpecError, did_you_mean, either
from archspec.graph import Graph, Identity, moving
from archspec.kind import kinds_of, lookup
from archspec.kinds.interface import Backbone, Interface
from archspec.moving import Course, Moving, again, is_course
from archspec.part import part
from archspec.place import Broken
from archspec.resolve import resolve
from archspec.reuse import Rounds
from archspec.scope import Frame, Scope
from archspec.source import Map, Seq, as_tree, below, parse, read

VERSION = 1
MAX_NODES = 1_000_000
KEYS = (
    "archspec",
    "name",
    "description",
    "interface",
    "dims",
    "defaults",
    "init",
    "blocks",
    "graph",
    "outputs",
    "extends",
    "set",
)
INITS = {"normal": {"std": 0.02, "depth_scaled": False}, "truncated_normal": {"std": 0.02, "depth_scaled": False},
         "xavier": {"gain": 1.0}, "kaiming": {"gain": 1.0}, "mup": {"std": 0.02, "base_width": 256}}  # fmt: skip


class Spec:
    """An architecture, checked and typed.

    Attributes:
        name: the spec's name.
        interface: what goes in and comes out.
        graph: the typed graph.
        init: the initialisation scheme and its numbers.
        tree: the resolved tree that it was made from.
    """

    def __init__(self, tree: Map, name: str, interface: Interface, graph: Graph, init: dict[str, Any]) -> None:
        self.tree, self.name, self.interface, self.graph, self.init = tree, name, interface, graph, init

    def _digest(self, identity: Identity) -> str:
        parts = [self.interface.name_, self.graph.digest(identity)]
        if identity == "full":
            parts += [repr(sorted(self.init.items()))]
        return blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()

    @cached_property
    def structure(self) -> str:
        """Hash of what is computed and what it costs; ignores initialisation, rates and training-only nodes."""
        return self._digest("structure")

    @cached_property
    def full(self) -> str:
        """Hash of all that decides how it trains; names are no part of it."""
        return self._digest("full")

    @cached_property
    def moving(self) -> dict[str, Moving]:
        """The numbers that move while it trains, by where they stand in the file."""
        return moving(self.graph)

    @cached_property
    def final(self) -> Spec:
        """What is left when training is over: a spec of the same structure and parameters in which no number moves."""
        return self.where(lambda course: course.final)

    def at(self, progress: float) -> Spec:
        """The spec as it is at a progress of training from 0 to 1; what is drawn in training has its default."""
        return self.where(lambda course: course.at(progress))

    def where(self, value: Callable[[Course], float]) -> Spec:
        """The spec with a number in place of each one that moves; itself, where none does."""
        return from_tree(_with_numbers(as_tree(self.canonical()), value)) if self.moving else self

    def part(self, name: str) -> Spec:
        """What an entry of the interface computes, to be priced by itself; its inputs are what the entry is handed.

        Numbers that move in training are what they end at.

        Errors:
            SpecError: the interface has no such entry.
        """
        entry = self.interface.entries.get(name)
        if entry is None:
            hint = did_you_mean(name, self.interface.entries) or "parts are declared under entries: of the interface"
            raise SpecError(Problem(f"{self.name} has no part {name!r}", hint, "interface.entries"))
        graph = part(self.final.graph, entry.from_, entry.to)
        return Spec(self.tree, f"{self.name}.{name}", Backbone.model_validate({"inputs": {}}), graph, self.init)

    def canonical(self) -> dict[str, Any]:
        """The canonical form: defaults filled, names resolved, rounds unrolled; itself a spec of the same hashes."""
        return canonical(self.name, self.interface, self.graph, self.init)


def load(path: str | os.PathLike[str], *, set: Mapping[str, Any] | None = None) -> Spec:
    """Reads and checks a spec.

    Args:
        set: values by path that replace what the file says, as ``{"graph.layers.times": 6}``.

    Errors:
        SpecError: every independent problem of the file.
    """
    return from_tree(resolve(read(path), set))


def loads(text: str, file: str = "<text>") -> Spec:
    """Checks a spec given as text."""
    return from_tree(resolve(parse(text, file)))


def from_tree(tree: Map, known: Rounds | None = None) -> Spec:
    """Checks a resolved tree.

    Args:
        known: rounds of trees that differ from it in the graph alone, which are used again. Places in it that later
            errors name may then be those of another tree.

    Errors:
        SpecError: every independent problem.
    """
    header(tree, "archspec", "spec")
    for key in ("interface", "graph"):
        if key not in tree:
            raise SpecError(Problem(f"{key!r} is missing", f"add {key}: …", "", tree.mark))
    elaborator, graph = _elaborate(tree, 1, known)
    if elaborator.depth_read and elaborator.layer > 1:
        elaborator, graph = _elaborate(tree, elaborator.layer, known)
    interface = elaborator.interface
    assert isinstance(interface, Interface)
    return Spec(tree, str(tree.get("name", "unnamed")), interface, graph, _init(tree))


def _with_numbers(raw: Any, value: Callable[[Course], float]) -> Any:
    if is_course(raw):
        return value(again(raw))
    if isinstance(raw, Map):
        for key in raw:
            raw[key] = _with_numbers(raw[key], value)
    elif isinstance(raw, Seq):
        raw[:] = [_with_numbers(item, value) for item in raw]
    return raw


def header(tree: Map, word: str, what: str) -> None:
    """Checks the first line of a file: its kind and format version."""
    other = {"archspec": "spec", "archspace": "space", "archstudy": "study", "archrecipe": "recipe"}
    if word not in tree:
        found = next((other[key] for key in other if key in tree), None)
        cause = f"this is a {found}, not a {what}" if found else f"no {word}: in this file"
        raise SpecError(Problem(cause, f"a {what} starts with {word}: {VERSION}", "", tree.mark))
    if tree[word] != VERSION or tree[word] is True:
        cause = f"format version {tree[word]!r}; this program knows {VERSION}"
        raise SpecError(Problem(cause, "a newer version of this program may read it", word, tree.where(word)))


def _elaborate(tree: Map, layers: int, known: Rounds | None) -> tuple[Elaborator, Graph]:
    blocks = tree.get("blocks", Map())
    elaborator = Elaborator(blocks if isinstance(blocks, Map) else Map(), layers, known)
    _sections(elaborator, tree)
    scope = Scope(values={"depth": elaborator.depth})
    scope.defaults = dict(tree.get("defaults", {}))
    graph: Graph | None = None
    try:
        interface = _interface(elaborator, tree, scope)
        _dims(elaborator, tree.get("dims", Map()), scope)
        inputs = interface.streams()
        frame = Frame(None, dict(inputs))
        graph = elaborator.sequence(
            tree["graph"], frame, scope, len(inputs), None, declared=tree.move("graph", "outputs")
        )
        _carry(elaborator, tree["interface"], interface, graph, frame)
        _promised(elaborator, tree, interface, graph)
    except Broken:
        pass
    for name in elaborator.blocks.keys() - elaborator.called:
        elaborator.skim(Seq([name], elaborator.blocks.where(name), f"blocks.{name}"), 0, scope, None)
    elaborator.raise_all()
    assert graph is not None
    return elaborator, graph


def _sections(elaborator: Elaborator, tree: Map) -> None:
    """Checks the shapes of a file's sections; without them nothing else can be said."""
    elaborator.keys(tree, KEYS)
    for key in ("name", "description"):
        if not isinstance(tree.get(key, ""), str):
            elaborator.problem(tree, key, f"the {key} must be a word")
    shapes = {"blocks": (Map, "a mapping"), "dims": (Map, "a mapping"), "defaults": (Map, "a mapping"),
              "graph": (Seq, "a list of nodes")}  # fmt: skip
    whole = True
    for key, (shape, words) in shapes.items():
        if key in tree and not isinstance(tree[key], shape):
            elaborator.problem(tree, key, f"{key} must be {words}")
            whole = False
    for name, block in elaborator.blocks.items():
        if not isinstance(block, (str, Map, Seq)) or (isinstance(block, Map) and not _worded(block)):
            hint = "a name, a mapping with kind:, or a list"
            elaborator.problem(elaborator.blocks, name, f"block {name!r} is no node", hint)
            whole = False
        if lookup(name) is not None:
            cause = f"a block may not bear the name of a kind, {name!r}"
            elaborator.problem(elaborator.blocks, name, cause, "rename it")
    if whole and "defaults" in tree:
        elaborator.check_defaults(tree["defaults"])
    if not whole or (elaborator.problems and "dims" not in tree):
        elaborator.raise_all()  # a section that is missing would be missed everywhere


def _worded(block: Map) -> bool:
    return isinstance(block.get("kind", ""), str)


def _dims(elaborator: Elaborator, dims: Map, scope: Scope) -> None:
    """Binds the file's numbers, each of which may use those before it."""
    for name in dims:
        value = elaborator.number_or_word(dims, name, scope)
        if isinstance(value, str):
            value = elaborator.evaluate(dims, name, value, scope)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            elaborator.problem(dims, name, "a dim is a number or an expression")
            raise Broken
        scope.values_[name] = value


def _promised(elaborator: Elaborator, tree: Map, interface: Interface, graph: Graph) -> None:
    """Checks that the graph gives what the interface promises, and that it can be built at all."""
    if graph.size > MAX_NODES:
        largest = max(graph.nodes, key=lambda node: sum(body.size for body in node.bodies.values()))
        cause = f"the graph has {graph.size:,} nodes once its rounds are unrolled"
        elaborator.problem(largest.raw, "times", cause, f"at most {MAX_NODES:,}")
    try:
        interface.check({name: stream for name, stream in graph.types.items() if name not in graph.training})
    except Refused as refused:
        if "outputs" in tree:
            elaborator.problem(tree, "outputs", refused.cause, refused.hint)
        else:
            elaborator.problem(tree["graph"], len(tree["graph"]) - 1, refused.cause, refused.hint)


def _carry(elaborator: Elaborator, raw: Any, interface: Interface, graph: Graph, frame: Frame) -> None:
    """Makes the next state an output, and checks that entries name streams and need no others."""
    for name, state in interface.state.items():
        found = frame.resolve(state.next)
        if found is None or found[1] is None:
            elaborator.problem(raw["state"][name], "next", f"no stream is called {state.next!r}",
                               did_you_mean(state.next, frame.names()))  # fmt: skip
        elif str(found[1].wide(0).spans) != str(graph.inputs[name].spans) or found[1].width != graph.inputs[name].width:
            elaborator.problem(
                raw["state"][name], "next", f"{state.next} is {found[1]}, the state {graph.inputs[name]}"
            )
        else:
            graph.outputs[name], graph.types[name] = found[0], found[1]
    for name, entry in interface.entries.items():
        for field, texts in (("from", entry.from_), ("to", entry.to)):
            for text in texts:
                if frame.resolve(text) is None:
                    elaborator.problem(raw["entries"][name], field, f"no stream is called {text!r}",
                                       did_you_mean(text, frame.names()))  # fmt: skip
        missing = needed(graph, [text.split(".")[0] for text in entry.to], {text.split(".")[0] for text in entry.from_})
        for stream in sorted(missing):
            elaborator.problem(raw["entries"][name], "from", f"{', '.join(entry.to)} also needs the input {stream!r}",
                               f"from: [{', '.join([*entry.from_, stream])}]")  # fmt: skip


def needed(graph: Graph, to: list[str], given: set[str]) -> set[str]:
    """The graph's inputs that must be known to compute some nodes, beside what is given."""
    nodes = {node.name: node for node in graph.nodes}
    missing, seen, todo = set(), set(given), list(to)
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in nodes:
            node = nodes[name]
            todo += [ref.node for ref in (*node.inputs, *node.outer.values())]
        else:
            missing.add(name)
    return missing


def _interface(elaborator: Elaborator, tree: Map, scope: Scope) -> Interface:
    raw = elaborator.as_map(tree["interface"], tree, "interface")
    word = str(raw.get("kind"))
    kind = lookup(word)
    if kind is None or not issubclass(kind, Interface):
        hint = did_you_mean(word, kinds_of("interface"))
        elaborator.problem(raw, "kind", f"no interface is called {word!r}", hint or either(kinds_of("interface")))
        raise Broken
    dims = tree.get("dims", Map())
    inner = scope.child(**{name: value for name, value in dims.items() if isinstance(value, (int, float))})
    interface = elaborator.validated(raw, kind, elaborator.values(raw, kind, inner))
    assert isinstance(interface, Interface)
    elaborator.interface = interface
    try:
        interface.streams()
    except Refused as refused:
        elaborator.refused(raw, refused)
        raise Broken from None
    return interface


def _init(tree: Map) -> dict[str, Any]:
    raw = tree.get("init", "normal")
    given = {"kind": raw} if isinstance(raw, str) else raw
    problem = None
    if not isinstance(given, dict) or not isinstance(given.get("kind"), str) or given["kind"] not in INITS:
        word = given.get("kind") if isinstance(given, dict) else given
        problem = Problem(
            f"no initialisation is called {word!r}", did_you_mean(str(word), INITS), "init", tree.where("init")
        )
        raise SpecError(problem)
    known: dict[str, Any] = INITS[given["kind"]]
    for key, value in given.items():
        if key != "kind" and (key not in known or not isinstance(value, (int, float))):
            cause = f"unknown field {key!r}" if key not in known else f"{value!r} is not a number"
            raise SpecError(Problem(cause, did_you_mean(key, known), below("init", key), raw.where(key)))
    return {"kind": given["kind"], **known, **given}
