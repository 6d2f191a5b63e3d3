"""``archc cost``: what a model costs on a device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from archc.files import echo_json, spec
from archc.options import Json, Plugins, Set


def cost(
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="A spec.")] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Samples at a time.")] = 1,
    length: Annotated[int | None, typer.Option("--length", min=1, help="Tokens; the interface's by default.")] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="Of weights and activations.")] = "float32",
    device: Annotated[str, typer.Option("--device", help="A profile, or the path of one.")] = "local",
    devices: Annotated[bool, typer.Option("--devices", help="List the device profiles.")] = False,
    set: Set = None,
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """Tell what a model costs: parameters, FLOPs, memory, and the latency on a device.

    \b
        archc cost examples/tiny.yaml --device h100_sxm --dtype bfloat16 --batch 8
    """
    if devices:
        _list(json)
        return
    if file is None:
        raise typer.BadParameter("name a spec, or ask for --devices", param_hint="FILE")
    from search.cost.price import price

    checked = spec(file, set)
    priced = price(checked, batch=batch, length=length, dtype=dtype, device=device)
    if json:
        echo_json(priced.as_dict())
    else:
        from search.cost.table import text

        typer.echo(text(priced))


def _list(as_json: bool) -> None:
    from search.cost.devices import LOCAL, load, names

    found = {name: None if name == LOCAL else load(name) for name in names()}
    if as_json:
        echo_json({name: device and device.model_dump() for name, device in found.items()})
        return
    for name, device in found.items():
        if device is None:
            typer.echo(f"{name:<16} this computer, measured at first use")
            continue
        peak = ", ".join(f"{dtype} {flops / 1e12:g}" for dtype, flops in device.peak.items())
        memory = device.memory[-1]
        typer.echo(f"{name:<16} {device.title}: {memory.size / 1e9:g} GB at {memory.bandwidth / 1e9:g} GB/s; TFLOP/s {peak}")
