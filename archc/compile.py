"""``archc compile``: a spec becomes a model on disk."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from archc.files import echo_json, spec
from archc.options import Json, Plugins, Set
from search import memory


class DType(StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    float64 = "float64"


def compile(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A spec.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Folder of spec.yaml and weights.safetensors.")
    ],
    seed: Annotated[int, typer.Option("--seed", help="Decides every initial weight.")] = 0,
    dtype: Annotated[DType, typer.Option("--dtype", help="Of the weights.")] = DType.float32,
    set: Set = None,
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """Compile a spec, with fresh weights, into a folder that compiler.load reads.

    \b
        archc compile examples/tiny.yaml -o tiny
    """
    checked = spec(file, set)
    import torch

    import compiler

    kind: torch.dtype = getattr(torch, dtype)
    # On the meta device first: it has the sizes of all weights and no weight.
    blank = compiler.compile(checked, device="meta", dtype=kind)
    parameters = sum(value.numel() for value in blank.parameters())
    need = sum(value.numel() * value.element_size() for value in (*blank.parameters(), *blank.buffers()))
    memory.require(need, f"{checked.name}, {parameters:,} parameters in {dtype},")
    model = compiler.compile(checked, dtype=kind, seed=seed)
    compiler.save(model, out)
    if json:
        echo_json({"folder": str(out), "parameters": parameters, "bytes": need, "dtype": str(dtype), "seed": seed,
                   "structure": checked.structure, "full": checked.full})  # fmt: skip
    else:
        typer.echo(f"{checked.name}: {parameters:,} parameters, {memory.shown(need)} in {out}")
