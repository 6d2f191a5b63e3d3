"""Files that commands are given, and the values that ``--set`` puts into them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer

from archspec.errors import Mark, Problem, SpecError
from archspec.source import Map, Seq, below, parse
from archspec.spec import Spec
from archspec.spec import load as load_spec

HEADERS = {"archspec": "spec", "archspace": "space", "archstudy": "study", "archrecipe": "recipe"}


def overrides(texts: Iterable[str] | None, option: str = "--set") -> Map:
    """Values by path, from texts like ``graph.layers.times=6``; a value is YAML.

    Errors:
        SpecError: a text without ``=``, or with a value that is not YAML; its place is ``--set:NUMBER:COLUMN``.
    """
    does = option.removeprefix("--") + "s"
    result = Map()
    for number, text in enumerate(texts or (), 1):
        path, sign, value = text.partition("=")
        mark = Mark(option, number, len(path) + 2)
        if not sign or not path:
            raise SpecError(
                Problem(f"{text!r} {does} nothing", f"write {option} path=value", mark=mark._replace(column=1))
            )
        # One key, as long as the path, on the line of its number: so the marks of the value are its places in the text.
        line = "\n" * (number - 1) + "k".ljust(max(1, len(path) - 1)) + ": " + value
        parsed = parse(line, option)["k"]
        _move(parsed, path)
        result.put(path, parsed, mark._replace(column=1), mark)
    return result


def _move(value: Any, path: str) -> None:
    """Tells a parsed value, and all inside, that it stands at a path."""
    if isinstance(value, (Map, Seq)):
        value.path = path
        for key in value if isinstance(value, Map) else range(len(value)):
            _move(value[key], below(path, key))  # type: ignore[index]


def spec(path: Path, texts: Iterable[str] | None = None) -> Spec:
    """Reads and checks a spec.

    Errors:
        SpecError: all its problems.
    """
    return load_spec(path, set=overrides(texts))


def write(path: Path, text: str) -> None:
    """Writes a file that the user named; what stood there stays until the new one is whole.

    Errors:
        SpecError: it cannot be written.
    """
    place = Path(os.path.realpath(path))
    beside = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        if os.path.exists(place) and not os.path.isfile(place):  # a pipe or a device
            place.write_text(text, encoding="utf-8")
        else:
            beside.write_text(text, encoding="utf-8")
            beside.replace(place)
    except OSError as error:
        raise SpecError(Problem(f"{path} cannot be written: {error.strerror}", "name another file with -o")) from None
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def echo_json(value: Any) -> None:
    """Prints one JSON value."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
