"""``archc cost``: what a model costs on a device."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archc.files import echo_json, spec
from archc.options import Json, Plugins, Set
from search.memory import shown

if TYPE_CHECKING:
    from search.cost.price import Cost


def cost(
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="A spec.")] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Samples at a time.")] = 1,
    length: Annotated[int | None, typer.Option("--length", min=1, help="Tokens; the interface's by default.")] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="Of weights and activations.")] = "float32",
    device: Annotated[str, typer.Option("--device", help="A profile, or the path of one.")] = "local",
    devices: Annotated[bool, typer.Option("--devices", help="List the device profiles.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Compare predictions with what was measured.")] = False,
    truth: Annotated[
        Path | None, typer.Option("--truth", metavar="FILE", help="With --check: what archc measure kept.")
    ] = None,
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
    if check:
        from archc.truth import compare

        compare(device, truth, json)
        return
    if file is None:
        raise typer.BadParameter("name a spec, or ask for --devices or --check", param_hint="FILE")
    from search.cost.price import price

    checked = spec(file, set)
    priced = price(checked, batch=batch, length=length, dtype=dtype, device=device)
    if json:
        echo_json(priced.as_dict())
    else:
        typer.echo(table(checked.name, priced))


def table(name: str, priced: Cost) -> str:
    """The cost of a model: a row for each part, then the totals."""
    heads = ("part", "kind", "output", "parameters", "FLOPs", "share", "ms")
    rows = []
    for _, alike in groupby(
        priced.rows, key=lambda row: (row.name.rpartition(".")[0], row.output, row.parameters, row.flops)
    ):
        run = list(alike)
        row, of = run[0], len(run)
        name_ = row.name if of == 1 else f"{row.name}–{run[-1].name.rpartition('.')[2]}"
        rows.append((name_, row.kind, row.output, f"{of * row.parameters:,}", large(of * row.flops),
                     f"{of * row.share:.1%}", f"{sum(row.latency_ms for row in run):.4g}"))  # fmt: skip
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    lines = [
        "  ".join(text.ljust(width) if column < 3 else text.rjust(width)
                  for column, (text, width) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in (heads, *rows)
    ]  # fmt: skip
    figures = priced.as_dict()
    memory, assumed = figures["memory"], figures["assumptions"]
    active = f", {priced.active:,} active" if priced.active != priced.parameters else ""
    lines += [
        "",
        f"{name}: batch {priced.batch}, length {assumed['length'] or 'fixed'}, {priced.dtype}, {priced.device}",
        f"parameters   {priced.parameters:,}{active}",
        f"forward      {large(priced.forward)}FLOP ({large(priced.forward / 2)}MAC), {priced.latency_ms:.4g} ms",
        f"training     {large(priced.training_step)}FLOP a step",
        f"memory       {shown(memory['weights'])} of weights; at most {shown(memory['peak_inference'])} in inference, "
        f"{shown(memory['peak_training'])} in training",
        f"cache        {shown(memory['cache_per_token'])} a token",
    ]
    lines += [f"not priced: {', '.join(priced.unpriced)}"] if priced.unpriced else []
    return "\n".join(lines)


def large(count: float) -> str:
    """A count as people read it: 4.5 G."""
    for unit, scale in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= scale:
            return f"{count / scale:.4g} {unit}"
    return f"{count:g} "


def _list(as_json: bool) -> None:
    from search.cost.devices import LOCAL, load, names

    found = {name: None if name == LOCAL else load(name) for name in names()}
    if as_json:
        echo_json({name: device and device.model_dump() for name, device in found.items()})
        return
    heads = ("name", "device", "fp32", "bf16", "fp16", "GB", "GB/s", "W")
    rows = [heads]
    for name, device in found.items():
        if device is None:
            rows.append((name, "this computer, measured at first use", *6 * ("",)))
            continue
        memory, power = device.memory[-1], device.power
        peaks = [device.peak.get("float32"), device.peak.get("bfloat16"), device.peak.get("float16")]
        places = [3 if peak and peak < 1e12 else 1 if peak and peak < 1e14 else 0 for peak in peaks]
        tera = [f"{peak / 1e12:,.{place}f}" if peak else "–" for peak, place in zip(peaks, places, strict=True)]
        rest = (f"{memory.size / 1e9:.0f}", f"{memory.bandwidth / 1e9:,.0f}", f"{power.full:g}" if power else "–")
        rows.append((name, device.title, *tera, *rest))
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    for row in rows:
        cells = (text.ljust(width) if column < 2 else text.rjust(width)
                 for column, (text, width) in enumerate(zip(row, widths, strict=True)))  # fmt: skip
        typer.echo("  ".join(cells).rstrip())
    typer.echo("\nfp32, bf16, fp16: peak TFLOP/s of dense matrix products; GB, GB/s: main memory; W: at full load")
