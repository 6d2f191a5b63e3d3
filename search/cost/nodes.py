"""What stands at a node of a space, and at the nodes inside it, whatever is chosen."""

from __future__ import annotations

from copy import copy
from typing import Any

from archspec.source import Map, Seq
from spaces.choices import Alternative, Constant, Node, Product, Rounds, may_be_absent
from spaces.ranges import Range


def text(node: Node) -> str:
    """All texts that may stand at a node."""
    if isinstance(node, Constant):
        return repr(node.value)
    if isinstance(node, Range):
        return node.of or ""
    if isinstance(node, Alternative):
        return " ".join(map(text, node.options))
    if isinstance(node, Rounds):
        return f"{text(node.body)} {text(node.times)}"
    return " ".join([repr(node.template), *(text(part.node) for part in node.parts)])


def template_of(node: Node) -> Any:
    return node.value if isinstance(node, Constant) else node.template if isinstance(node, Product) else None


def keys(node: Node) -> list[Any]:
    template = template_of(node)
    return (
        list(template) if isinstance(template, Map) else list(range(len(template))) if isinstance(template, Seq) else []
    )


def varying(node: Node) -> dict[Any, Node]:
    return {part.key: part.node for part in node.parts} if isinstance(node, Product) else {}


def part_of(node: Node, key: Any, at: int) -> tuple[Node, int]:
    """What stands at a key, and where its slots begin."""
    if isinstance(node, Product):
        for part in node.parts:
            if part.key == key:
                return part.node, at + part.offset
    template = template_of(node)
    return Constant(template[key] if isinstance(template, Seq) else template.get(key)), at


def halves(layer: Node) -> list[Node]:
    """A layer with its mixer alone and one with its other half alone, if it is these one after the other."""
    template = template_of(layer)
    if not isinstance(layer, Product) or not isinstance(template, Map) or template.get("kind") != "transformer_layer":
        return []
    if {"kind", "place"} & varying(layer).keys() or template.get("place") == "parallel":
        return []
    if not {"mixer", "channel"} <= template.keys():
        return []
    if all(_absent(layer, key) for key in ("mixer", "channel")):
        return []  # it may be nothing at all
    found = []
    for other in ("channel", "mixer"):
        half = copy(layer)  # its choices stand where they stood
        half.template = Map(template)
        half.template[other] = "absent"
        half.parts = [part for part in layer.parts if part.key != other]
        found.append(half)
    return found


def _absent(node: Node, key: str) -> bool:
    found, _ = part_of(node, key, 0)
    return may_be_absent(found) or template_of(found) == "absent"
