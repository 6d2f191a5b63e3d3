"""What a node stands for: names of blocks and kinds, blocks called with parameters, sugar, defaults, shared weights."""

from __future__ import annotations

from typing import Any

from archspec.errors import did_you_mean
from archspec.fields import NODE_KEYS, Fields
from archspec.kind import REGISTRY, Kind, Slot, kinds_of, lookup
from archspec.moving import is_course
from archspec.place import Broken
from archspec.scope import Frame, Scope
from archspec.source import Map, Seq, below


class Blocks(Fields):
    """Rewrites nodes until each is a mapping with a kind.

    Args:
        blocks: the file's named blocks.
        layers: how many layers the file has, once known; ``depth`` runs from 0 to 1 over them.
    """

    def __init__(self, blocks: Map, layers: int) -> None:
        super().__init__()
        self.blocks, self.layers = blocks, layers
        self.called: set[str] = set()
        self.layer = 0
        self.depth_read = False

    def depth(self) -> float:
        self.depth_read = True
        return min(1.0, max(0, self.layer - 1) / max(1, self.layers - 1))

    def is_node(self, text: str) -> bool:
        """Whether a word names a block or a kind."""
        return text in self.blocks or text in REGISTRY

    def as_map(self, raw: Any, container: Map | Seq, key: Any) -> Map:
        """A node as a mapping: a word is a kind or block with its defaults, a list a sequence."""
        mark, path = container.where(key), below(container.path, key)
        if isinstance(raw, Map):
            if not isinstance(raw.get("kind", ""), str):
                self.problem(raw, "kind", "kind must be a word")
                raise Broken
            if is_course(raw):
                self.problem(container, key, "only numbers move in training, not nodes", "weigh two nodes by a number")
                raise Broken
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
            self.problem(
                container, key, f"{raw!r} is no node", "a node is a name, a mapping with kind:, or a list of nodes"
            )
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
            container, key = Seq([raw], container.where(key)), 0  # an error further on still knows where it began

    def call(self, raw: Map, scope: Scope) -> tuple[Any, Scope]:
        """A block's definition, and the scope in which its parameters are bound."""
        name = raw["kind"]
        definition = self.blocks[name]
        if scope.inside(name):
            self.problem(raw, "kind", f"block {name!r} contains itself", "a block that repeats itself is a loop")
            raise Broken
        self.called.add(name)
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
            defaults = definition.get("defaults", Map())
            if isinstance(defaults, Map):
                self.check_defaults(defaults)
                inner.defaults |= defaults
            else:
                self.problem(definition, "defaults", "defaults are a mapping from linear or norm to a kind")
            definition = definition.move(*(k for k in definition if k not in ("parameters", "defaults")))
            for key in ("from", "when", "weights") if "kind" in definition else ():
                if key in definition:
                    self.problem(definition, key, f"{key}: has no meaning in a block", "say it where the block is used")
            if "graph" not in definition and "kind" not in definition:
                self.problem(self.blocks, name, f"block {name!r} has neither kind: nor graph:")
                raise Broken
        return definition, inner

    def expanded(self, raw: Map, scope: Scope, slot: Slot | None) -> Seq | None:
        """The nodes that a piece of sugar stands for, or None."""
        kind = lookup(raw.get("kind"))
        expand = getattr(kind, "expand", None)
        if kind is None or expand is None:
            return None
        if getattr(kind, "layer", False):
            self.layer += 1
        instance = self.validated(raw, kind, self.values(raw, kind, scope))
        items: Seq = expand(instance, raw)
        return items

    def sugar(self, raw: Map, kind: type[Kind], scope: Scope) -> Map:
        """A node of sugar as a sequence of what it stands for."""
        items = self.expanded(raw, scope, None)
        result = Map(mark=raw.mark, path=raw.path)
        result.put("kind", "sequence", raw.mark, raw.mark)
        result.put("body", items, raw.mark, raw.mark)
        return result

    def check_defaults(self, given: Map) -> None:
        """Reports defaults of roles that have none, and such that no node could have."""
        for role, default in given.items():
            if role not in ("linear", "norm"):
                self.problem(given, role, f"there is no default for {role!r}", "linear or norm")
                continue
            word = default.get("kind", "") if isinstance(default, Map) else default
            kind = lookup(word)
            if word is not None and not isinstance(word, str):
                self.problem(given, role, "a default is the name of a kind, or a mapping with kind: and its fields")
            elif role == "norm" and word is not None and not (kind and kind.wraps):
                cause = f"{word} wraps no norms" if kind else f"no kind that wraps norms is called {word!r}"
                self.problem(given, role, cause, "by_label; other norms are said where they stand")
            elif role == "linear" and word not in ("linear", None) and not (kind and "linear" in kind.roles):
                hint = did_you_mean(word, kinds_of("linear"))
                self.problem(given, role, f"no kind of weight matrix is called {word!r}", hint)

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

    def wrapped(self, raw: Map, kind: type[Kind], scope: Scope) -> Map:
        """A norm under a default that wraps norms."""
        default = scope.default("norm") if "norm" in kind.roles and not kind.wraps else None
        if not isinstance(default, Map) or not (wrapper := lookup(default.get("kind"))) or not wrapper.wraps:
            return raw
        result = Map(default)
        result.put("body", raw.move(*(key for key in raw if key not in ("name", "from", "when"))), raw.mark, raw.mark)
        for key in ("name", "from", "when"):
            if key in raw:
                result.put(key, raw[key], raw.key_marks.get(key), raw.value_marks.get(key))
        return result

    def shared(self, raw: Map, frame: Frame) -> tuple[Map, str]:
        """A node that uses another's weights: that node's description with this one's name and inputs.

        With ``weights: {of: …}`` it is described itself, and uses the weights whose names and shapes it has as well.
        """
        target = raw["weights"]
        described = isinstance(target, Map)
        if isinstance(target, Map):
            self.keys(target, ("of",))
            target = target.get("of")
        node = frame.nodes.get(target) if isinstance(target, str) else None
        if node is None:
            self.problem(raw, "weights", f"no node before this one in the same graph is called {target!r}",
                         did_you_mean(str(target), frame.nodes))  # fmt: skip
            raise Broken
        if described:
            return raw.move(*(key for key in raw if key != "weights")), node.shares or str(target)
        source = node.raw
        result = Map(source)
        for key in ("name", "from", "when"):
            result.pop(key, None)
        for key in raw:
            if key not in ("weights", "kind", "name", "from", "when") and raw[key] != source.get(key):
                self.problem(raw, key, f"{key!r} is stated beside weights: {target}", "the node is described there")
        for key in ("name", "from", "when"):
            if key in raw:
                result.put(key, raw[key], raw.key_marks.get(key), raw.value_marks.get(key))
        return result, node.shares or target

    def unknown_kind(self, raw: Map, slot: Slot | None, streams: list[str]) -> None:
        """Reports a word that names neither a kind nor a block, nor a stream where one may stand."""
        word = raw["kind"]
        fitting = kinds_of(*slot.roles) if slot else kinds_of("body")
        may_read = bool(slot and slot.stream)
        hint = did_you_mean(word, [*fitting, *self.blocks, *(streams if may_read else [])])
        if not hint and may_read and streams:
            hint = f"streams here are {', '.join(streams)}"
        what = "stream, kind or block" if may_read else "kind or block"
        self.problem(raw, "kind", f"no {what} is called {word!r}", hint or "archc kinds lists the kinds")
