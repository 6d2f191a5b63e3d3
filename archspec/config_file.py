"""The ``config.json`` of a `transformers` model: read it, and say where a field stands in it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from archspec import blame
from archspec.errors import Mark, Problem, SpecError

CONFIG = "config.json"
LARGEST = 16 * 2**20  # bytes
HINT = "name the config.json of a transformers model, or its folder"


def read_config(path: Path) -> dict[str, Any]:
    """A ``config.json``.

    Errors:
        SpecError: missing, unreadable or no JSON object.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise SpecError(Problem("there is no such file", HINT, str(path))) from None
    except OSError as error:
        raise SpecError(Problem(f"cannot be read: {error.strerror}", HINT, str(path))) from None
    return parse_config(data, str(path))


def parse_config(data: bytes, where: str, hint: str = HINT) -> dict[str, Any]:
    """What a ``config.json`` says.

    Args:
        where: its name, for errors.
        hint: what to do if it is none.

    Errors:
        SpecError: no JSON object.
    """

    def refuse(cause: str, line: int = 0, column: int = 0) -> SpecError:
        return SpecError(Problem(cause, hint, "", Mark(where, line, column)) if line else Problem(cause, hint, where))

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [key for key, _ in pairs]
            key = next(key for key in names if names.count(key) > 1)
            raise refuse(f"the field {blame.name(key)!r} stands twice")
        return found

    try:
        if len(data) > LARGEST:
            raise refuse("larger than 16 MiB; a configuration is small")
        text = data.decode("utf-8-sig")
        if not text.strip():
            raise refuse("the file is empty")
        found = json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise refuse(f"not JSON: {error.msg.removesuffix(' at')}", error.lineno, error.colno) from None
    except (UnicodeDecodeError, RecursionError):
        raise refuse("not a JSON text file") from None
    except SpecError:
        raise
    except ValueError:
        raise refuse("not JSON: a number has too many digits") from None
    if not isinstance(found, dict):
        raise refuse("not a JSON object")
    return found


def mark_of(where: str, *keys: str) -> Mark | None:
    """Where a field, by any of its names, stands in a configuration file."""
    if not where:
        return None
    try:
        text = Path(where).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
    depth = 0
    for token in re.finditer(r'"((?:[^"\\]|\\.)*)"(\s*:)?|[\[{}\]]', text):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token[0], 0)
        if depth == 1 and token[2] and any(json.dumps(key, ensure_ascii=ascii_) == token[0].rstrip(": \t\r\n")
                                           for key in keys for ascii_ in (True, False)):  # fmt: skip
            before = text[: token.start()]
            return Mark(where, before.count("\n") + 1, token.start() - before.rfind("\n"))
    return Mark(where, 1, 1)
