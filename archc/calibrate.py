"""``archc calibrate``: a device is measured, or fitted to what was measured of it elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archc.files import echo_json, write
from archc.options import Json
from archspec.errors import Problem, SpecError

if TYPE_CHECKING:
    from search.cost.devices import Device

FEW = 10  # measured specs that tell a device from another


class Here(StrEnum):
    """Devices of this computer."""

    cpu = "cpu"
    cuda = "cuda"


Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Of a CPU; as many as torch takes by default.")]


def calibrate(
    device: Annotated[Here, typer.Option("--device", help="Of this computer.")] = Here.cpu,
    from_: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE.csv", help="Fit another device to latencies: spec,...,latency_ms."),
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", metavar="PROFILE", help="With --from: the device profile that is nearest.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE.json", help="Write the profile here.")
    ] = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Measure a device of this computer, so that latencies on it are known; a minute on a CPU, two on a GPU.

    The profile is what --device local (or cuda) means from then on. With --from, a device that is elsewhere is fitted
    to latencies that were measured there, as few as ten.

    \b
        archc calibrate
        archc calibrate --from phone.csv --base snapdragon_855 -o phone.json
    """
    if out is not None and out.suffix != ".json":
        raise SpecError(Problem(f"{out} is no name of a profile", "name a file that ends in .json with -o"))
    if from_ is not None:
        if base is None:
            raise SpecError(Problem("--from fits a profile, and none is named", "add --base PROFILE"))
        _elsewhere(from_, base, out, json)
    elif base is not None:
        raise SpecError(Problem("--base is only for --from", "leave it out to measure this computer"))
    else:
        _here(str(device), out, threads, json)


def _here(device: str, out: Path | None, threads: int | None, json: bool) -> None:
    ready(device, threads)
    from search.calibration import calibrate
    from search.calibration.stages import Stages
    from search.cost import local
    from search.cost.fingerprint import fingerprint

    for file in (local.file_of(device), out):
        if file is not None:
            _writable(file)
    began = time.perf_counter()
    try:
        with Stages(quiet=json) as progress:
            progress(0.0, "peaks and bandwidths")
            profile = calibrate.calibrate(
                local.measure(device),
                device,
                progress=progress,
                fingerprint=fingerprint(device),
                steady=calibrate.STEADY,
            )
        if out is not None:
            write(out, _text(profile))
        kept = local.write(profile, device)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the old profile is kept") from None
    except OSError as error:
        file = local.file_of(device)
        raise SpecError(Problem(f"{file} cannot be written: {error.strerror}", "the old profile is kept")) from None
    assert profile.measured is not None
    if profile.measured.drift > calibrate.STEADY:
        warn(f"the canary moved by {profile.measured.drift:.1%}: other work runs on this machine; try again without")
    if json:
        echo_json({"profile": str(out or kept), "kept": str(kept), **_figures(profile)})
        return
    typer.echo(f"{profile.title}: calibrated in {time.perf_counter() - began:.0f} s")
    typer.echo("\n".join(learned(profile)))
    typer.echo(f"kept in {kept}" + (f" and {out}" if out else ""))
    if threads is not None:
        typer.echo(f"with OMP_NUM_THREADS={threads} it is what --device local means")


def _elsewhere(file: Path, base: str, out: Path | None, json: bool) -> None:
    from search.calibration.elsewhere import fit, read
    from search.cost import devices

    target = out or file.with_suffix(".json")
    if out is None and target.exists():
        raise SpecError(Problem(f"{target} is there already", "name a file with -o"))
    nearest = devices.load(base)
    truths = read(file)
    profile = fit(truths, nearest, file.name)
    assert profile.measured is not None
    if len(truths) < FEW:
        specs = "spec tells one scale" if len(truths) == 1 else f"specs tell little; {FEW} tell a device"
        warn(f"{len(truths)} measured {specs}")
    write(target, _text(profile))
    if json:
        echo_json({"profile": str(target), **_figures(profile)})
        return
    typer.echo(f"{profile.title}: {len(truths)} measurements of {file}")
    typer.echo("\n".join(_phases(profile)))
    typer.echo(f"in {target}: archc cost SPEC --device {target}")


def ready(device: str, threads: int | None) -> None:
    """Sets the number of threads.

    Errors:
        SpecError: there is no such device.
    """
    import torch

    if device != "cpu" and not torch.cuda.is_available():
        raise SpecError(Problem("this computer has no CUDA device that torch can use", "try --device cpu"))
    if threads is not None:
        torch.set_num_threads(threads)


def warn(text: str) -> None:
    """A line for whoever looks, not for programs."""
    print(f"warning: {text}", file=sys.stderr)


def learned(profile: Device) -> Iterator[str]:
    """What measurements say of a device, in a few lines."""
    assert profile.measured is not None
    peaks = ", ".join(f"{name} {flops / 1e9:,.0f}" for name, flops in profile.peak.items())
    yield f"peak        {peaks} GFLOP/s"
    levels = ", ".join(f"{level.name} {level.bandwidth / 1e9:,.1f}" for level in profile.memory)
    yield f"bandwidth   {levels} GB/s"
    yield f"overhead    {1e6 * profile.overhead:.2f} us an operator"
    yield (
        f"steadiness  the canary moved by {profile.measured.drift:.1%}; "
        f"measured twice, kernels lie {profile.measured.residual:.1%} from their mean"
    )
    yield from _phases(profile)


def _phases(profile: Device) -> Iterator[str]:
    assert profile.measured is not None
    for phase, whole in profile.measured.whole.items():
        apart = [abs(error) for error in whole.errors]
        many = "each told by the others, " if len(apart) > 1 else ""
        mean = f"mean error {sum(apart) / len(apart):.1%}, at most {max(apart):.1%}"
        yield f"{phase:<11} {len(apart)} model{'s' * (len(apart) > 1)}, {many}{mean}"


def _figures(profile: Device) -> dict[str, object]:
    measured = profile.measured
    assert measured is not None
    return {
        "title": profile.title,
        "peak": {str(name): flops for name, flops in profile.peak.items()},
        "memory": [level.model_dump() for level in profile.memory],
        "overhead": profile.overhead,
        "drift": measured.drift,
        "residual": measured.residual,
        "whole": {phase: whole.model_dump() for phase, whole in measured.whole.items()},
        "fingerprint": measured.fingerprint,
    }


def _text(profile: Device) -> str:
    return profile.model_dump_json(indent=1, exclude_none=True) + "\n"


def _writable(file: Path) -> None:
    """Says before anything is measured that a file could not be written."""
    import tempfile

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=file.parent):
            pass
        if file.is_dir():
            raise IsADirectoryError(21, "it is a folder")
    except OSError as error:
        raise SpecError(Problem(f"{file} cannot be written: {error.strerror}", "the old profile is kept")) from None
