"""``archc cost``: what a model costs on a device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from archc.files import echo_json, spec, write
from archc.options import Json, Plugins, Set


def cost(
    files: Annotated[list[Path] | None, typer.Argument(metavar="FILE", help="A spec; several with --compare.")] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Samples at a time.")] = 1,
    length: Annotated[int | None, typer.Option("--length", min=1, help="Tokens; the interface's by default.")] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="Of weights and activations.")] = "float32",
    device: Annotated[
        list[str] | None,
        typer.Option("--device", help="A profile, or the path of one; local by default. Repeatable with --html."),
    ] = None,
    phase: Annotated[str, typer.Option("--phase", help="Whose parts are listed: prefill, decode or step.")] = "prefill",
    context: Annotated[
        int | None, typer.Option("--context", help="Tokens before the decoded one; the length less one by default.")
    ] = None,
    operators: Annotated[bool, typer.Option("--operators", help="List classes of operators, not parts.")] = False,
    compare: Annotated[bool, typer.Option("--compare", help="A column for each of several specs.")] = False,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page with drawings.")] = None,
    tokens: Annotated[float | None, typer.Option("--tokens", help="Cost of a training run on so many.")] = None,
    on: Annotated[int, typer.Option("--on", min=1, help="Devices of the training run.")] = 1,
    mfu: Annotated[float, typer.Option("--mfu", help="Share of their peak that it reaches.")] = 0.4,
    devices: Annotated[bool, typer.Option("--devices", help="List the device profiles.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Compare predictions with what was measured.")] = False,
    truth: Annotated[
        Path | None, typer.Option("--truth", metavar="FILE", help="With --check: what archc measure kept.")
    ] = None,
    progress: Annotated[
        float | None,
        typer.Option("--progress", min=0, max=1, help="Of training, for numbers that move in it; its end by default."),
    ] = None,
    part: Annotated[
        str | None, typer.Option("--part", metavar="NAME", help="Of the model, an entry of its interface.")
    ] = None,
    set: Set = None,
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """Tell what a model costs: parameters, FLOPs, memory, and latencies on a device with their intervals.

    \b
        archc cost examples/tiny.yaml --device h100_sxm --dtype bfloat16 --batch 8
        archc cost examples/tiny.yaml --device l4 --phase decode --context 100 --operators
        archc cost examples/tiny.yaml --device h100_sxm --dtype bfloat16 --tokens 300e9 --on 64
        archc cost examples/seq2seq.yaml --part encode --device l4
        archc cost --compare examples/tiny.yaml examples/zoo/language/gpt2.yaml --device l4
    """
    if devices:
        _list(json)
        return
    where = device or ["local"]
    if (check and files) or (truth and not check):
        raise typer.BadParameter("--check prices what was measured, which --truth names, and no other spec")
    if check:
        from archc.truth import compare as held

        held(where[0], truth, json)
        return
    if not files:
        raise typer.BadParameter("name a spec, or ask for --devices or --check", param_hint="FILE")
    if len(files) > 1 and not compare:
        raise typer.BadParameter("several specs are told side by side with --compare", param_hint="FILE")
    if len(where) > 1 and html is None:
        raise typer.BadParameter("several devices are told side by side with --html", param_hint="--device")
    if tokens is not None and not (tokens > 0 and 0 < mfu <= 1):
        raise typer.BadParameter("a run is of more than 0 tokens, at more than 0 and at most 1 of the peak")
    from search.cost.breakdown import breakdown, require
    from search.cost.setting import setting
    from search.cost.training_run import training_run

    specs = [spec(file, set) for file in files]
    moving = any(one.moving for one in specs)
    if progress is not None and not moving:
        raise typer.BadParameter("no number of the spec moves in training", param_hint="--progress")
    specs = [one.at(1.0 if progress is None else progress) for one in specs]
    specs = specs if part is None else [one.part(part) for one in specs]
    for name in where:
        setting(dtype=dtype, device=name, phase=phase)  # type: ignore[arg-type]
    for one in specs:
        require(one, phase)  # type: ignore[arg-type]
    found = [
        [breakdown(one, batch=batch, length=length, dtype=dtype, device=name, context=context) for name in where]
        for one in specs
    ]
    first = found[0][0]
    run = None if tokens is None else training_run(first, tokens=tokens, devices=on, mfu=mfu)
    if html is not None:
        from search.cost.report.page import page

        write(html, page(specs[0].name, found[0], phase, run=run))  # type: ignore[arg-type]
    if moving and not json:
        when = "the end" if progress is None else f"progress {progress:g}"
        typer.echo(f"numbers that move in training: as at {when} of it\n")
    if json:
        from search.cost.report.plain import as_dict

        echo_json({str(file): as_dict(one[0]) for file, one in zip(files, found, strict=True)} if compare
                  else as_dict(first, run))  # fmt: skip
    elif compare:
        from search.cost.report.comparison import comparison

        typer.echo(comparison([one.name for one in specs], [one[0] for one in found]))
    elif html is not None:
        typer.echo(f"written: {html}")
    else:
        from search.cost.report.text import text

        typer.echo(text(specs[0].name, first, phase, operators=operators, run=run))  # type: ignore[arg-type]


def _list(as_json: bool) -> None:
    from search.cost.devices import CUDA, LOCAL, load, names

    found = {name: None if name in (LOCAL, CUDA) else load(name) for name in names()}
    if as_json:
        echo_json({name: device and device.model_dump() for name, device in found.items()})
        return
    heads = ("name", "device", "fp32", "bf16", "fp16", "GB", "GB/s", "W")
    rows: list[tuple[str, ...]] = [heads]
    for name, device in found.items():
        if device is None:
            rows.append(
                (name, f"this computer's {'CPU' if name == LOCAL else 'GPU'}, measured at first use", *6 * ("",))
            )
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
