"""YAML for people: what fits on a line stands on one, what does not is opened one level."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from archspec.canonical import text

WIDTH = 118


def readable(tree: dict[str, Any], comment: str = "") -> str:
    """A spec as a person would write it; reads back as the same tree."""
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    for key, value in tree.items():
        opened = key in ("blocks", "graph")
        lines += _entry(f"{key}:", value, 0, opened=opened)
    return "\n".join(lines) + "\n"


def _entry(head: str, value: Any, indent: int, *, opened: bool = False) -> Iterator[str]:
    line = f"{' ' * indent}{head} {flow(value)}"
    if not value or not isinstance(value, (dict, list)) or (len(line) <= WIDTH and not opened):
        yield line
    elif isinstance(value, dict):
        yield f"{' ' * indent}{head}"
        for key, item in value.items():
            yield from _entry(f"{_word(key)}:", item, indent + 2)
    else:
        yield f"{' ' * indent}{head}"
        for item in value:
            yield from _item(item, indent + 2)


def _item(value: Any, indent: int) -> Iterator[str]:
    line = f"{' ' * indent}- {flow(value)}"
    if not isinstance(value, dict) or not value or len(line) <= WIDTH:
        yield line
        return
    lines = [part for key, item in value.items() for part in _entry(f"{_word(key)}:", item, indent + 2)]
    yield f"{' ' * indent}- {lines[0].lstrip()}"
    yield from lines[1:]


def flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_word(key)}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(flow, value)) + "]"
    return _word(value)


def _word(value: Any) -> str:
    if isinstance(value, str) and value and value.isidentifier() and value not in ("null", "true", "false"):
        return value
    if isinstance(value, float):
        short = repr(value)
        return short if yaml.safe_load(short) == value or "e" in short else text({"x": value})[3:].strip()
    return text({"x": [value]}).splitlines()[1].removeprefix("- ") if not isinstance(value, str) else _quoted(value)


def _quoted(value: str) -> str:
    plain = text({"x": value})[3:].strip()
    risky = any(sign in value for sign in ",[]{}#:\n")
    return plain if not risky or plain[:1] in "'\"" else "'" + value.replace("'", "''") + "'"
