"""``archc schema``: the JSON Schema with which an editor completes and checks files."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from archc.files import write
from archc.options import Plugins


class File(StrEnum):
    spec = "spec"
    space = "space"
    study = "study"
    recipe = "recipe"


def schema(
    of: Annotated[File, typer.Argument(metavar="spec|space|study|recipe", help="Which files it describes.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write to a file.")] = None,
    plugin: Plugins = None,
) -> None:
    """Print the JSON Schema of a kind of file, with the kinds of your plug-ins.

    \b
        archc schema spec -o archspec.schema.json
    """
    text = json.dumps(made(of), indent=1, ensure_ascii=False) + "\n"
    if out is None:
        typer.echo(text, nl=False)
    else:
        write(out, text)


def made(of: File) -> dict[str, Any]:
    """The schema of a kind of file."""
    if of == File.study:
        from search import study

        return study.schema()
    if of == File.recipe:
        from search import recipes

        return recipes.schema()
    from archspec import schema as derived

    return derived.schema(space=of == File.space)
