"""``archc import``: a published configuration or checkpoint becomes a spec or a compiled model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archc.compile import DType
from archc.files import echo_json, write
from archc.options import Json
from archspec.config_file import CONFIG, read_config
from archspec.errors import Problem, SpecError

if TYPE_CHECKING:
    from archspec.family import Imported


def import_(
    source: Annotated[
        Path | None, typer.Argument(metavar="CONFIG|DIR", help="A config.json, or the folder of a checkpoint.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE|DIR", help="A .yaml for the spec; a folder for spec and weights."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Of the spec.")] = None,
    dtype: Annotated[DType | None, typer.Option("--dtype", help="Of the weights; as stored by default.")] = None,
    families: Annotated[bool, typer.Option("--families", help="List the families that are known.")] = False,
    json: Json = False,
) -> None:
    """Import a transformers configuration as a spec, or a checkpoint as a compiled model.

    \b
        archc import Llama-3.1-8B/config.json -o llama.yaml
        archc import Llama-3.1-8B -o compiled
    """
    from archspec.family import families as known
    from archspec.family import family, family_of

    if families:
        rows = [(family(one).model_type, family(one).architecture) for one in known()]
        if json:
            echo_json(dict(rows))
        else:
            typer.echo("\n".join(f"{kind:24}{architecture}" for kind, architecture in rows))
        return
    if source is None:
        raise SpecError(Problem("nothing to import", "name a config.json or the folder of a checkpoint"))
    if name is not None and not (name.strip() and name.isprintable()):
        raise SpecError(Problem(f"--name {name!r} is no name", "one line of text"))
    whole = os.path.isdir(source)  # False where it cannot be looked at
    folder = source if whole else source.parent
    config_file = source / CONFIG if whole else source
    config = read_config(config_file)
    imported = family_of(config, str(config_file)).expand(config, str(config_file), name)
    if out is None or out.suffix in (".yaml", ".yml"):
        if json:
            echo_json({"model_type": imported.family.model_type, "structure": imported.spec.structure,
                       "full": imported.spec.full, "spec": imported.text})  # fmt: skip
        elif out is None:
            typer.echo(imported.text, nl=False)
        if out is not None:
            write(out, imported.text)
        return
    if config_file.name != CONFIG:
        cause = f"weights are described by the {CONFIG} beside them, not by {source.name}"
        raise SpecError(Problem(cause, f"name the folder; without weights, -o {source.stem}.yaml", str(source)))
    _compiled(imported, folder, out, dtype, name, json=json)


def _compiled(
    imported: Imported, folder: Path, out: Path, dtype: DType | None, name: str | None, *, json: bool
) -> None:
    """Imports a checkpoint's weights too."""
    import torch

    import compiler
    from search import memory

    blank = compiler.compile(imported.spec, device="meta")
    parameters = sum(value.numel() for value in blank.parameters())
    kind = getattr(torch, dtype) if dtype else compiler.Checkpoint(folder).dtype()
    memory.require(parameters * kind.itemsize, f"{imported.spec.name}, {parameters:,} parameters in {kind},")
    model = compiler.import_checkpoint(folder, dtype=kind, name=name)
    compiler.save(model, out)
    size = parameters * kind.itemsize
    if json:
        echo_json({"folder": str(out), "model_type": imported.family.model_type, "parameters": parameters,
                   "bytes": size, "dtype": str(kind).removeprefix("torch."), "full": imported.spec.full})  # fmt: skip
    else:
        typer.echo(f"{imported.spec.name}: {parameters:,} parameters, {memory.shown(size)} in {out}")
