"""``archc export``: a compiled model as others read it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from archc.files import echo_json
from archc.options import Json, Plugins


class Target(StrEnum):
    transformers = "transformers"


def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A compiled model: spec.yaml and weights.")],
    to: Annotated[Target, typer.Option("--to", help="Whose checkpoint it becomes.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder of the checkpoint.")],
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """Export a compiled model as a checkpoint that transformers loads with from_pretrained.

    One that was not imported, or was changed since, is exported if its spec is one of a known family.

    \b
        archc export compiled --to transformers -o back
    """
    import compiler

    model = compiler.load(folder)
    files = compiler.export_checkpoint(model, out)
    if json:
        echo_json({"folder": str(out), "files": files})
    else:
        typer.echo(f"{out}: {', '.join(files)}")
