"""Where the values of a spec come from in a family's configuration, as far as the family's templates show it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Any

from archspec.family import Family
from archspec.template import parsed

_OPEN = re.compile(r"\$\{([^{}]*)\}")
Leaf = tuple[str, ...]
"""A field of a configuration, or an entry of one that is a mapping: ``("rope_parameters", "rope_theta")``."""


class Origins:
    """What a family's templates say of its configuration's fields.

    Attributes:
        words: texts that a field may have to be compared with or looked up by, and what the look-up gives.
        kinds: every text in it, the names of the kinds among them.
        entries: names that are looked up in mappings.
        counted: names of how many items a list has.
        listed: names of lists, and the words that may be in them.
    """

    def __init__(self, family: Family) -> None:
        self.family = family
        self.words: dict[str, Any] = {}
        self.kinds: set[str] = set()
        self.entries: set[str] = set()
        self.counted: set[str] = set()
        self.listed: dict[str, set[str]] = {}
        self._says: list[tuple[str, str, str]] = []  # kind, its field, what stands there
        self._means: dict[str, list[str]] = {}  # a name of a let, a dim or an argument: what it stands for
        trees = (family.let, family.spec, family.define)
        for name, value in family.let.items():
            self._means.setdefault(name, []).extend(_texts(value))
        for name, value in family.spec.get("dims", {}).items():
            self._means.setdefault(name, []).extend(_texts(value))
        for body in family.define.values():
            for name, value in body.get("let", {}).items():
                self._means.setdefault(name, []).extend(_texts(value))
        for tree in trees:
            self._walk(tree, "", "")
        for _ in range(3):
            self.counted |= {
                name for word in self.counted for text in self._means.get(word, ()) for name, _ in _read(text)
            }

    def _walk(self, tree: Any, kind: str, path: str) -> None:
        if isinstance(tree, Mapping):
            word = tree.get("kind")
            if isinstance(word, str):
                kind, path = word, ""
            for key, value in tree.items():
                self.kinds.add(str(key))
                if key in ("if", "in") and isinstance(value, str) and "${" not in value:
                    self._expression(value)
                inner = isinstance(value, (Mapping, list))
                self._walk(value, kind, key if key not in ("then", "else", "do", "value") else path)
                if not inner and kind and isinstance(value, str):
                    self._says.append((kind, key if key not in ("then", "else", "do", "value") else path, value))
        elif isinstance(tree, list):
            for item in tree:
                self._walk(item, kind, path)
        elif isinstance(tree, str):
            self.kinds.add(tree)
            for text in _OPEN.findall(tree):
                self._expression(text)

    def _expression(self, text: str) -> None:
        for node in ast.walk(parsed(text)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                self.kinds.add(node.value)
            match node:
                case ast.Compare(
                    left=ast.Constant(value=str() as word), ops=[ast.In()], comparators=[ast.Name(id=name)]
                ):
                    self.listed.setdefault(name, set()).add(word)
            if isinstance(node, ast.Compare):
                for part in (node.left, *node.comparators):
                    for one in ast.walk(part):
                        if isinstance(one, ast.Constant) and isinstance(one.value, str):
                            self.words.setdefault(one.value, None)
            if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
                for mapping in self._mappings(node.value.id):
                    self.words.update({str(key): value for key, value in mapping.items()})
            if isinstance(node, ast.Attribute):
                self.entries.add(node.attr)
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
                self.counted |= {one.id for one in (node.left, node.right) if isinstance(one, ast.Name)}
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                if node.func.id in ("range", "types_of"):
                    self.counted |= {
                        one.id for part in node.args for one in ast.walk(part) if isinstance(one, ast.Name)
                    }
                if node.func.id == "get" and isinstance(node.args[1], ast.Constant):
                    self.entries.add(str(node.args[1].value))
                body = self.family.define.get(node.func.id, {})
                for name, given in zip(body.get("arguments", []), node.args, strict=False):
                    self._means.setdefault(name, []).append(ast.unparse(given))

    def _mappings(self, name: str) -> Iterator[Mapping[str, Any]]:
        for lets in (self.family.let, *(body.get("let", {}) for body in self.family.define.values())):
            if isinstance(lets.get(name), Mapping):
                yield lets[name]

    def hints(self, values: Mapping[tuple[str, str], list[Any]]) -> dict[str, list[Any]]:
        """For each name of the configuration, values that it may have; those come first that it says most directly.

        Args:
            values: of an architecture, by kind and field.
        """
        found: dict[str, list[tuple[int, Any]]] = {}
        kinds = {kind for kind, _ in values}
        for kind, field, text in self._says:
            known, rank = values.get((kind, field), []), 0
            if not known and ("$" in kind or kind not in kinds):
                known, rank = values.get(("", field), []), 15
            for value in known:
                self._spread(text, value, rank, found, frozenset())
        ranked: dict[str, list[Any]] = {}
        for name, pairs in found.items():
            pairs.sort(key=lambda pair: pair[0])
            ranked[name] = list({repr(value): value for _, value in pairs}.values())
        return ranked

    def _spread(
        self, text: str, value: Any, rank: int, found: dict[str, list[tuple[int, Any]]], seen: frozenset[str]
    ) -> None:
        for name, cost in _read(text):
            if name in seen:
                continue
            found.setdefault(name, []).append((rank + cost, value))
            if rank + cost < 40:
                for inner in self._means.get(name, ()):
                    self._spread(inner, value, rank + cost + 1, found, seen | {name})


def _texts(value: Any) -> Iterator[str]:
    """Expressions that a value may come from; not those inside the nodes in it."""
    if isinstance(value, str):
        yield from _OPEN.findall(value) or ([value] if value.isidentifier() else [])
    elif isinstance(value, Mapping) and "kind" not in value:
        for key in ("then", "else", "value"):
            yield from _texts(value.get(key))
        if isinstance(value.get("if"), str):
            yield value["if"]


def _read(text: str) -> Iterator[tuple[str, int]]:
    """Names in a text, each with how far its value is from being that of the text."""
    opened = _OPEN.findall(text)
    plain = len(opened) == 1 and text.strip() == f"${{{opened[0]}}}"
    if not opened:
        if not text.isidentifier() and not re.fullmatch(r"[\w.\s()+*/\[\]',=!-]+", text):
            return
        opened, plain = [text], True
    for one in opened:
        try:
            tree = parsed(one)
        except Exception:  # noqa: BLE001  a text that is no expression reads nothing
            continue
        yield from _names(tree, 0 if plain else 12)


def _names(node: ast.expr, cost: int) -> Iterator[tuple[str, int]]:
    match node:
        case ast.Name(id=name):
            yield name, cost
        case ast.Attribute(value=whole, attr=name):
            yield name, cost
            yield from _names(whole, cost + 20)
        case ast.BoolOp(values=parts):
            for number, part in enumerate(parts):
                yield from _names(part, cost + number)
        case ast.IfExp(test=test, body=body, orelse=other):
            yield from _names(body, cost)
            yield from _names(other, cost + 1)
            yield from _names(test, cost + 10)
        case ast.Call(func=ast.Name(id="get"), args=[whole, ast.Constant(value=str() as name), *_]):
            yield name, cost
            yield from _names(whole, cost + 20)
        case ast.Call(args=args):
            for number, part in enumerate(args):
                yield from _names(part, cost + min(number, 3))
        case _:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.expr):
                    yield from _names(child, cost + 5)
