"""Learning curves of the trials, and what their rungs gave where they were trained in several."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from search.axes import Plane, Scale, path
from search.report.marks import DOMINATED, FRONT, Row, dot, grid, key

CURVES = 200  # drawn at most: the front, and others evenly
POINTS = 80  # of a curve
SMOOTH = 0.02  # share of the steps that a training loss is a mean over


def drawings(report: Row, folder: Path) -> str:
    """Training losses, validations and rungs over steps; nothing where no file of a trial is here."""
    best = {row["trial"] for row in report["front"]}
    trials = _some(report["all"], best)
    found = {row["trial"]: curve for row in trials if (curve := _read(folder, row["hash"]))}
    drawn = []
    losses = {trial: _smooth(curve["losses"]) for trial, curve in found.items() if len(curve.get("losses", ())) > 1}
    if losses:
        drawn.append(_lines(losses, best, "training loss [nats], smoothed", log=None))
    checks = {trial: [(step, loss) for step, loss, *_ in curve["validations"]] for trial, curve in found.items()
              if len(curve.get("validations", ())) > 1}  # fmt: skip
    if checks:
        drawn.append(_lines(checks, best, "validation loss [nats]", log=None))
    rungs = {row["trial"]: [(float(steps), _first(value)) for steps, value in row["rungs"]] for row in report["all"]
             if row["rungs"]}  # fmt: skip
    if rungs:
        first = report["objectives"][0]
        unit = f" [{first['unit']}]" if first["unit"] else ""
        drawn.append(_lines(rungs, best, f"{first['name']}{unit} after each rung", log=True, points=True))
    if not drawn:
        return ""
    return key((DOMINATED, "trial"), (FRONT, "Pareto front")) + grid(drawn)


def _some(rows: list[Row], best: set[int]) -> list[Row]:
    others = [row for row in rows if row["trial"] not in best]
    every = max(1, -(-len(others) // CURVES))
    return [row for row in rows if row["trial"] in best][:CURVES] + others[::every]


def _read(folder: Path, digest: str) -> dict[str, Any] | None:
    try:
        stored = json.loads((folder / "trials" / digest[:16] / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    training = stored.get("training")
    return training if isinstance(training, dict) else None


def _smooth(losses: list[float]) -> list[tuple[float, float]]:
    """Means over some steps, at so many places as can be told apart."""
    over = max(1, round(SMOOTH * len(losses)))
    sums = np.concatenate([[0.0], np.cumsum(losses)])
    ends = np.unique(np.linspace(over, len(losses), POINTS).round().astype(int))
    return list(zip(ends.astype(float).tolist(), ((sums[ends] - sums[ends - over]) / over).tolist(), strict=True))


def _first(value: Any) -> float:
    return float(value[0] if isinstance(value, (list, tuple)) else value)


def _lines(
    curves: dict[int, list[tuple[float, float]]], best: set[int], name: str, *, log: bool | None, points: bool = False
) -> str:
    steps = Scale.of([x for curve in curves.values() for x, _ in curve], log=bool(log), whole=True)
    plane = Plane(steps, Scale.of([y for curve in curves.values() for _, y in curve]), height=320)
    marks = []
    for trial, curve in sorted(curves.items(), key=lambda item: item[0] in best):
        places = [(plane.x(x), plane.y(y)) for x, y in curve]
        kind = "way front" if trial in best else "way"
        marks.append(path(places, colour="", more=f'class="{kind}" data-t="{trial}"').replace('stroke="" ', ""))
        marks += [dot(x, y, trial, front=trial in best, radius=2.5) for x, y in places] if points else []
    return plane.drawn("steps of training", name, marks, label=name)
