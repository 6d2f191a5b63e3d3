"""Which field of a configuration is to blame for what is wrong with the spec that it stands for.

A field decides a value of the spec if another value of the field changes it; where no field does, that field is to
blame without which the problem is gone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from archspec.errors import Problem, Refused, SpecError
from archspec.template import TemplateError

Tree = Mapping[str, Any]
SHOWN = 60  # characters of a value or name that are told


def of_value(problem: Problem, given: Tree, tree: Tree, expand: Callable[[Tree], Tree]) -> str | None:
    """The field that decides the value which a problem of the spec is about.

    Args:
        given: the fields.
        tree: the spec that they stand for.
        expand: makes a spec of other fields.
    """
    value = _at(tree, problem.path)
    found = []
    for key in given:
        for other in _others(given, key):
            try:
                if _at(expand(other), problem.path) != value:
                    found.append(key)
            except (Refused, TemplateError, SpecError):
                continue
            break
    return next((key for key in found if given[key] == value), found[0] if found else None)


def of_failure(given: Tree, fails: Callable[[Tree], bool]) -> str | None:
    """The first field without which nothing fails."""
    return next((key for key in given if not fails({k: v for k, v in given.items() if k != key})), None)


def told(problem: Problem, key: str, value: Any, wrong: Any) -> Problem:
    """A problem of the spec as one of a field.

    Args:
        key: the field.
        value: of the field.
        wrong: the value of the spec that it led to.
    """
    path, last = key, problem.path.rpartition(".")[2]
    if isinstance(value, Mapping):
        path = next((f"{key}.{inner}" for inner, one in value.items() if one == wrong), key)
    cause, hint = problem.cause, problem.hint
    if isinstance(wrong, str) and cause.startswith("nothing here is called"):  # it was read as an expression
        cause, hint = f"{shown(wrong)} is no number", None
    if hint and not (isinstance(value, Mapping) and path == key):
        hint = re.sub(rf"(?<!\w){re.escape(last)}(?!\w)", path, hint)
    return Problem(cause, hint, path)


def wrong(tree: Tree, path: str) -> Any:
    """The value that a problem is about."""
    found = _at(tree, path)
    return found[1] if isinstance(found, tuple) else found


def shown(value: Any) -> str:
    """A value as JSON, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, (dict, list)) else _brief(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def name(key: str, most: int = SHOWN) -> str:
    """A name on one line, cut where it is long."""
    text = key if key.isprintable() else json.dumps(key)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _brief(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "{…}" if isinstance(value, dict) else "[…]"


def _others(given: Tree, key: str) -> Iterator[Tree]:
    """Configurations that differ in one field."""
    value = given[key]
    if isinstance(value, (bool, int, float)):
        yield {**given, key: not value if isinstance(value, bool) else value + 1}
    yield {one: rest for one, rest in given.items() if one != key}


def _at(tree: Tree, path: str) -> Any:
    """What stands at a path, or the last that stands on the way to it; with its value if it is the name of a dim."""
    found: Any = tree
    for word in re.findall(r"[^.\[\]]+", path):
        if isinstance(found, Mapping) and word in found:
            found = found[word]
        elif isinstance(found, list) and word.isdigit() and int(word) < len(found):
            found = found[int(word)]
        else:
            break
    return (found, tree["dims"][found]) if isinstance(found, str) and found in tree.get("dims", {}) else found
