"""Reuse between files: ``extends:`` another file, and overrides by path (``set:``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from archspec.errors import Problem, SpecError, did_you_mean
from archspec.source import Map, Seq, as_tree, below, read, words

MAX_PARENTS = 16


def resolve(tree: Map, overrides: Mapping[str, Any] | None = None) -> Map:
    """The tree with the files that it extends merged in, and its ``set:`` and the given overrides applied.

    Mappings merge, lists and values replace. A block that replaces one of the same name reaches it as ``parent.name``.

    Errors:
        SpecError: a file that is missing or extends itself; a path that leads nowhere.
    """
    merged = _extended(tree, ())
    steps = merged.get("set")
    if steps is not None and not isinstance(steps, Map):
        raise SpecError(Problem("set is a mapping from paths to values", None, "set", merged.where("set")))
    changed = Map(merged)
    changed.pop("set", None)
    for path, value in (steps or {}).items():
        changed = put(changed, path, value, below("set", path), steps)
    marked = overrides if isinstance(overrides, Map) else None
    for path, value in (overrides or {}).items():
        changed = put(changed, path, as_tree(value, path), path, marked)
    return changed


def _extended(tree: Map, files: tuple[str, ...]) -> Map:
    parent = tree.get("extends")
    if parent is None:
        return tree
    mark = tree.where("extends")
    if not isinstance(parent, str):
        raise SpecError(Problem("extends names one file", None, "extends", mark))
    base_file = Path(tree.mark.file).parent if tree.mark else Path()
    path = str(base_file / parent)
    if path in files or len(files) > MAX_PARENTS:
        raise SpecError(Problem(f"{parent} extends itself", " → ".join([*files, path]), "extends", mark))
    try:
        base = read(path)
    except SpecError as error:
        raise SpecError(Problem(f"cannot extend {parent}: {error.problems[0].cause}", None, "extends", mark)) from None
    base = _extended(base, (*files, path))
    mine = Map(tree)
    mine.pop("extends")
    result = merge(base, mine)
    for header in ("archspec", "archspace"):  # a space may extend a spec and stays a space
        if header in result and header not in mine:
            result.pop(header)
    if isinstance(base.get("blocks"), Map) and isinstance(mine.get("blocks"), Map):
        result.put("blocks", _with_parents(base["blocks"], mine["blocks"], result["blocks"]), None, None)
    return result


def _with_parents(base: Map, mine: Map, merged: Map) -> Map:
    result = Map(merged)
    for name in mine:
        word = f"parent.{name}"
        if name in base and word in set(words(mine[name])):
            replaced = base[name]
            if word in base:  # the parent itself replaced a block of its own parent
                result.put(f"parent.{word}", base[word], None, None)
                replaced = _renamed(replaced, word, f"parent.{word}")
            result.put(word, replaced, base.key_marks.get(name), base.value_marks.get(name))
            result.put(name, mine[name], mine.key_marks.get(name), mine.value_marks.get(name))
    return result


def _renamed(raw: Any, old: str, new: str) -> Any:
    if isinstance(raw, Map):
        mapping = Map(raw)
        mapping.update({key: _renamed(value, old, new) for key, value in raw.items()})
        return mapping
    if isinstance(raw, Seq):
        listed = Seq(raw)
        listed[:] = [_renamed(value, old, new) for value in raw]
        return listed
    return new if raw == old else raw


def merge(base: Map, over: Map) -> Map:
    """Mappings merged key by key; a node of another kind, a choice, or a number that moves replaces the whole."""
    if "kind" in base and "kind" in over and base["kind"] != over["kind"]:
        return over
    if any(word in side for side in (base, over) for word in ("choose", "range", "bind")):
        return over
    result = Map(base)
    result.mark, result.path = over.mark, over.path
    for key, value in over.items():
        old = base.get(key)
        inner = merge(old, value) if isinstance(old, Map) and isinstance(value, Map) else value
        result.put(key, inner, over.key_marks.get(key), over.value_marks.get(key))
    return result


def put(tree: Map, path: str, value: Any, place: str, marks: Map | None) -> Map:
    """A copy of the tree with one value changed; items of a list are addressed by their node's name or number.

    Errors:
        SpecError: the path leads nowhere.
    """
    mark = marks.where(path) if marks is not None else None

    def step(node: Any, parts: list[str], done: list[str]) -> Any:
        part, rest = parts[0], parts[1:]
        if isinstance(node, Seq):
            index = _item(node, part)
            if index is None:
                names = [
                    str(item.get("name") or item.get("kind")) if isinstance(item, Map) else str(item) for item in node
                ]
                raise SpecError(
                    Problem(f"there is no item {part!r} in {'.'.join(done)}", did_you_mean(part, names), place, mark)
                )
            listed = Seq(node)
            listed[index] = step(node[index], rest, [*done, part]) if rest else value
            return listed
        if isinstance(node, str) and rest == [] and done:
            kind, node = node, Map(mark=mark, path=".".join(done))
            node.put("kind", kind, mark, mark)
        if not isinstance(node, Map):
            raise SpecError(Problem(f"{'.'.join(done) or 'the file'} has nothing inside", None, place, mark))
        if rest and part not in node:
            raise SpecError(
                Problem(
                    f"there is no {part!r} in {'.'.join(done) or 'the file'}", did_you_mean(part, node), place, mark
                )
            )
        changed = Map(node)
        changed.put(part, step(node[part], rest, [*done, part]) if rest else value, mark, mark)
        return changed

    result: Map = step(tree, path.replace("[", ".").replace("]", "").split("."), [])
    return result


def _item(listed: Seq, part: str) -> int | None:
    for number, item in enumerate(listed):
        if isinstance(item, Map) and part in (item.get("name"), item.get("kind")) or item == part:
            return number
    return int(part) if part.isdigit() and int(part) < len(listed) else None
