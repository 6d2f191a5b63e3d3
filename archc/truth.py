"""``archc cost --check``: predictions beside all that was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from archc.columns import columns
from archc.files import echo_json
from archspec.errors import Problem, SpecError

if TYPE_CHECKING:
    from search.calibration.check import Checked, Summary
    from search.cost.setting import Phase

HERE = {"local": "cpu", "cuda": "cuda"}


def compare(device: str, file: Path | None, json: bool) -> None:
    """Prints predictions beside measurements, and how good they are, phase by phase."""
    from search.calibration.check import check, summary
    from search.calibration.truth import file_of, read
    from search.cost import devices
    from search.cost.fingerprint import fingerprint
    from search.cost.setting import PHASES

    if file is None and device not in HERE:
        cause = f"--check needs measurements of {device}"
        raise SpecError(Problem(cause, "name their file with --truth"))
    profile = devices.load(device)
    here = HERE.get(device)
    truths = read(file or file_of(here or "cpu"))
    checked = check(truths, profile, fingerprint=fingerprint(here) if here else None)
    phases = [(phase, [one for one in checked if one.truth.phase == phase]) for phase in PHASES]
    found = {phase: summary(some) for phase, some in phases if some}
    compiled = len(truths) - len(checked)
    if json:
        echo_json({"device": profile.title, "compiled": compiled, "checked": [_plain(one) for one in checked],
                   "summary": {phase: asdict(one) for phase, one in found.items()}})  # fmt: skip
        return
    typer.echo(columns(_rows(checked), left=2))
    typer.echo("")
    typer.echo(columns(_summaries(found)))
    if compiled:
        typer.echo(f"\n{compiled} measured with torch.compile left out: operators are priced one by one")


def _rows(checked: Sequence[Checked]) -> list[tuple[str, ...]]:
    heads = ("spec", "phase", "batch", "length", "measured ms", "predicted ms", "error", "interval ms", "inside")
    rows: list[tuple[str, ...]] = [heads]
    for one in checked:
        truth = one.truth
        length = "–" if truth.length is None else str(truth.length)
        rows.append((truth.name, truth.phase, str(truth.batch), length, f"{truth.median_ms:.4g}",
                     f"{one.predicted_ms:.4g}", f"{one.error:+.1%}", f"{one.low_ms:.4g}–{one.high_ms:.4g}",
                     "yes" if one.inside else "no"))  # fmt: skip
    return rows


def _summaries(found: Mapping[Phase, Summary]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("phase", "measured", "mean error", "Kendall tau", "ordered within 15 % FLOPs", "inside its interval")
    ]
    for phase, one in found.items():
        tau = "–" if one.tau is None else f"{one.tau:.3f}"
        ordered = "–" if one.ordered is None else f"{one.ordered:.1%} of {one.pairs} pairs"
        rows.append((phase, str(one.count), f"{one.error:.1%}", tau, ordered, f"{one.coverage:.0%}"))
    return rows


def _plain(one: Checked) -> dict[str, object]:
    truth = one.truth
    return {
        "name": truth.name, "phase": truth.phase, "batch": truth.batch, "length": truth.length, "dtype": truth.dtype,
        "measured_ms": truth.median_ms, "predicted_ms": one.predicted_ms, "error": one.error, "low_ms": one.low_ms,
        "high_ms": one.high_ms, "inside": one.inside, "flops": one.flops,
    }  # fmt: skip
