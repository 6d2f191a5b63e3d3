"""A block that a varying repeat names is written out in its body, so that every round chooses for itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from archspec.errors import Problem, SpecError
from archspec.source import Map, Seq
from spaces.syntax import is_choice

PLACEMENT = ("name", "from", "when")  # what a call says about its place and not about the block


def inline_blocks(tree: Map) -> tuple[Map, dict[int, str]]:
    """A space without the blocks that its varying repeats name.

    Returns:
        The tree, which shares what it does not change, and the names of the written-out blocks by the identity of
        what stands in their place.

    Errors:
        SpecError: a block with choices and parameters is called from a varying repeat.
    """
    blocks = tree.get("blocks")
    if not isinstance(blocks, Map):
        return tree, {}
    inliner = _Inliner(blocks)
    result = inliner.visit(tree, inside=False)
    if result is tree:
        return tree, {}
    kept = set(blocks) - set(inliner.names.values())
    rest = result.move(*(key for key in result if key != "blocks"))
    kept |= {word for word in _words(rest) if word in blocks}
    while more := {word for name in kept for word in _words(blocks[name]) if word in blocks} - kept:
        kept |= more
    if kept:
        rest.put("blocks", result["blocks"].move(*(name for name in blocks if name in kept)), None, None)
    return rest, inliner.names


class _Inliner:
    def __init__(self, blocks: Map) -> None:
        self.blocks = blocks
        self.names: dict[int, str] = {}
        self.open: list[str] = []

    def varies(self, raw: Any, seen: tuple[str, ...] = ()) -> bool:
        """Whether a choice stands in a tree or in a block that it names."""
        if isinstance(raw, str):
            return raw in self.blocks and raw not in seen and self.varies(self.blocks[raw], (*seen, raw))
        if isinstance(raw, Map):
            return is_choice(raw) or any(self.varies(value, seen) for value in raw.values())
        return isinstance(raw, Seq) and any(self.varies(value, seen) for value in raw)

    def visit(self, raw: Any, *, inside: bool) -> Any:
        """The tree with blocks written out where ``inside`` a varying repeat."""
        if isinstance(raw, str):
            return self.definition(raw) if inside and raw in self.blocks and self.varies(raw) else raw
        if isinstance(raw, Map):
            kind = raw.get("kind")
            if inside and isinstance(kind, str) and kind in self.blocks and self.varies(kind):
                return self.call(raw, kind)
            changed = None
            for key, value in raw.items():
                deeper = inside or (key == "body" and raw.get("vary") == "each")
                new = self.visit(value, inside=deeper)
                if new is not value:
                    changed = changed if changed is not None else Map(raw)
                    changed[key] = new
            return raw if changed is None else changed
        if isinstance(raw, Seq):
            items = [self.visit(value, inside=inside) for value in raw]
            if all(new is old for new, old in zip(items, raw, strict=True)):
                return raw
            result = Seq(raw)
            result[:] = items
            return result
        return raw

    def definition(self, name: str) -> Any:
        if name in self.open:
            raise SpecError(Problem(f"block {name!r} contains itself", None, f"blocks.{name}", self.blocks.where(name)))
        self.open.append(name)
        result = self.visit(self.blocks[name], inside=True)
        self.open.pop()
        if isinstance(result, Map) and "parameters" in result:
            raise self.refusal(name)
        self.names[id(result)] = name
        return result

    def call(self, raw: Map, name: str) -> Any:
        """A mapping whose kind is a block: the definition, placed as the call says."""
        definition = self.definition(name)
        placed = [key for key in raw if key in PLACEMENT]
        if not placed and len(raw) == 1:
            return definition
        if len(placed) + 1 < len(raw) or not isinstance(definition, Map) or "kind" not in definition:
            raise self.refusal(name)
        result = Map(definition)
        for key in placed:
            result.put(key, raw[key], raw.key_marks.get(key), raw.value_marks.get(key))
        self.names[id(result)] = name
        return result

    def refusal(self, name: str) -> SpecError:
        cause = f"block {name!r} has choices and is called with fields where every round chooses for itself"
        return SpecError(Problem(cause, "write it out in the body", f"blocks.{name}", self.blocks.where(name)))


def _words(raw: Any) -> Iterator[str]:
    if isinstance(raw, str):
        yield raw
    elif isinstance(raw, Map):
        for value in raw.values():
            yield from _words(value)
    elif isinstance(raw, Seq):
        for value in raw:
            yield from _words(value)
