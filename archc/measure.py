"""``archc measure``: specs are timed on this computer, and kept as truth."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archc.calibrate import Here, Threads, ready, warn
from archc.columns import columns
from archc.compile import DType
from archc.files import echo_json, spec
from archc.options import Json, Plugins, Set
from archspec.errors import Problem, SpecError
from search import memory

if TYPE_CHECKING:
    from archspec.spec import Spec
    from search.calibration.truth import Truth
    from search.calibration.workload import Workload
    from search.cost.price import Cost


class Phases(StrEnum):
    prefill = "prefill"
    decode = "decode"
    step = "step"


SIZED = {"cpu": "xeon_8480", "cuda": "h100_sxm"}  # any profile of the kind: what is asked of it is memory, not time


def measure(
    files: Annotated[list[Path], typer.Argument(metavar="SPEC...", help="Specs.")],
    phase: Annotated[list[Phases] | None, typer.Option("--phase", help="prefill by default; repeatable.")] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Samples at a time.")] = 1,
    length: Annotated[int | None, typer.Option("--length", min=1, help="Tokens; the interface's by default.")] = None,
    context: Annotated[
        int | None, typer.Option("--context", min=0, help="Tokens before a decoded one; all but one by default.")
    ] = None,
    dtype: Annotated[DType, typer.Option("--dtype", help="Of weights and activations.")] = DType.float32,
    device: Annotated[Here, typer.Option("--device", help="Of this computer.")] = Here.cpu,
    threads: Threads = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Each in another order.")] = 5,
    compiled: Annotated[bool, typer.Option("--compiled", help="By torch.compile.")] = False,
    truth: Annotated[
        Path | None, typer.Option("--truth", metavar="FILE", help="Where to keep it; beside the device's profile.")
    ] = None,
    set: Set = None,
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """Time specs on this computer, all in turn and in several rounds, and keep what was found as truth.

    archc cost --check compares predictions with it.

    \b
        archc measure examples/tiny.yaml --phase prefill --phase decode --length 256
    """
    specs = [spec(file, set) for file in files]
    ready(str(device), threads)
    from search.calibration.calibrate import STEADY
    from search.calibration.clock import Clock
    from search.calibration.stages import Stages
    from search.calibration.truth import append, file_of
    from search.calibration.truth import measure as timed
    from search.calibration.workload import Workload
    from search.cost import local
    from search.cost.fingerprint import fingerprint
    from search.cost.price import price

    workloads: list[Workload] = []
    need = 0
    for one in specs:
        for chosen in phase or [Phases.prefill]:
            priced = price(
                one, batch=batch, length=length, dtype=str(dtype), device=SIZED[device], phase=chosen.value,
                context=context,
            )  # fmt: skip
            tokens = priced.context if chosen == "decode" else _tokens(priced, length)
            workloads.append(Workload(one, chosen.value, batch, tokens, str(dtype)))
            need += _peak(one, priced)
    memory.require(need, " and ".join(dict.fromkeys(one.name for one in specs)), str(device))
    clock = Clock(str(device), canary=local.canary(str(device)))
    try:
        with Stages(quiet=json) as progress:
            found = timed(
                workloads, clock, rounds=rounds, compiled=compiled, fingerprint=fingerprint(str(device)),
                progress=progress,
            )  # fmt: skip
    except SpecError:
        raise
    except Exception as error:
        if not compiled:
            raise
        cause = f"torch.compile failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise SpecError(Problem(cause, "leave --compiled out")) from error
    file = truth or file_of(str(device))
    append(file, found)
    if clock.drift > STEADY:
        warn(f"the canary moved by {clock.drift:.1%}: other work runs on this machine")
    if json:
        echo_json({"truth": str(file), "drift": clock.drift,
                   "measured": [one.model_dump(exclude={"spec"}, by_alias=True) for one in found]})  # fmt: skip
        return
    typer.echo(columns(_rows(found), left=2))
    typer.echo(f"\n{rounds} rounds, canary moved by {clock.drift:.1%}; kept in {file}")


def _tokens(priced: Cost, length: int | None) -> int | None:
    """What a length was given or assumed, where the interface leaves one open."""
    return priced.lengths.get("length", length) if priced.lengths else None


def _peak(one: Spec, priced: Cost) -> int:
    """Bytes that a measurement holds at most."""
    from search.calibration.workload import CHUNK
    from search.cost.price import price

    if priced.phase != "decode":
        return priced.peak_training if priced.phase == "step" else priced.peak_inference
    kept = (priced.context or 0) + 1
    read = price(one, batch=priced.batch, length=min(CHUNK, kept), dtype=priced.dtype, device=priced.device)
    return read.peak_inference + priced.cache_per_token * priced.batch * kept


def _rows(found: Sequence[Truth]) -> list[tuple[str, ...]]:
    heads = ("spec", "phase", "batch", "length", "dtype", "ms", "quartiles", "spread")
    rows: list[tuple[str, ...]] = [heads]
    for one in found:
        spread = (one.high_ms - one.low_ms) / one.median_ms
        length = "–" if one.length is None else str(one.length)
        rows.append((one.name, one.phase, str(one.batch), length, one.dtype, f"{one.median_ms:.4g}",
                     f"{one.low_ms:.4g}–{one.high_ms:.4g}", f"{spread:.1%}"))  # fmt: skip
    return rows
