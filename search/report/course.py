"""How a study went: the share of the possible hypervolume, or the best value, over trials and over training time.

The hypervolume is that which the front so far dominates up to a reference point (Zitzler and Thiele 1998,
"Multiobjective optimization using evolutionary algorithms", PPSN V), as a share of the box between that and the best
value of each objective. The reference point is, for each objective, what the study says is the worst, else the worst
that the last front has or the middle of all trials, whichever is worse, and a tenth of the range beyond.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from optuna._hypervolume import compute_hypervolume  # no public name hands it out

from search.axes import Plane, Scale, path, stairs
from search.report.marks import DOMINATED, FRONT, GUIDE, Row, better, complete, dot, grid, key, scale, titled

TRIALS = "complete trials"
MEMBERS = 60  # of a front of four objectives and more, whose hypervolume takes exponential time


def drawings(report: Row) -> str:
    """The course over trials, and over seconds of training where these are known; nothing without trials."""
    rows = sorted(complete(report), key=lambda row: row["ended"] or "")
    if not rows:
        return ""
    seconds = np.cumsum([(row["seconds"] or {}).get("training") or 0.0 for row in rows])
    courses = [([float(number) for number in range(1, len(rows) + 1)], TRIALS)]
    if seconds[-1] > 0:
        spent, unit = (seconds / 3600, "h") if seconds[-1] > 7200 else (seconds, "s")
        courses.append((spent.tolist(), f"time of training, all workers together [{unit}]"))
    if len(report["objectives"]) == 1:
        lead = key((DOMINATED, "trial"), (FRONT, "best so far"))
        return lead + grid([_best(report, rows, over, name) for over, name in courses])
    shares = hypervolumes(report, rows)
    if shares is None:
        return "<p>The front has too many members in too many objectives for its hypervolume to be computed.</p>"
    return grid([_shares(shares, over, name) for over, name in courses])


def hypervolumes(report: Row, rows: Sequence[Row]) -> list[float] | None:
    """The share of the hypervolume after each of the trials; None if it would take too long."""
    objectives = report["objectives"]
    points = np.array([[better(o) * row["values"][o["name"]] for o in objectives] for row in rows])
    best = np.array([[better(o) * row["values"][o["name"]] for o in objectives] for row in report["front"]])
    ideal, worst = points.min(axis=0), np.maximum(best.max(axis=0), np.median(points, axis=0))
    reach = np.where(worst > ideal, worst - ideal, points.max(axis=0) - ideal)
    far = 1.1 * np.where(reach > 0, reach, 1.0)
    given = np.array([np.nan if o["worst"] is None else better(o) * o["worst"] for o in objectives]) - ideal
    scaled = (points - ideal) / np.where(given > 0, given, far)
    front: NDArray[np.float64] = np.empty((0, len(objectives)))
    found: list[float] = []
    for point in scaled:
        if (point < 1).all() and not (front <= point).all(axis=1).any():
            front = np.vstack([front[~(point <= front).all(axis=1)], point])
            if len(objectives) > 3 and len(front) > MEMBERS:
                return None
            found.append(float(compute_hypervolume(front, np.ones(len(objectives)), assume_pareto=True)))
        else:
            found.append(found[-1] if found else 0.0)
    return found


def _shares(shares: Sequence[float], over: Sequence[float], name: str) -> str:
    plane = Plane(
        Scale.of([0.0, *over], log=False, whole=name == TRIALS),
        Scale(0.0, min(1.0, 1.08 * max(shares) or 1.0)),
        height=260,
    )
    corners = stairs([(plane.x(0), plane.y(0))] + [(plane.x(x), plane.y(y)) for x, y in zip(over, shares, strict=True)],
                     plane.x(over[-1]))  # fmt: skip
    return plane.drawn(name, "share of the hypervolume", [path(corners, colour=GUIDE, width=2)], label="hypervolume")


def _best(report: Row, rows: Sequence[Row], over: Sequence[float], name: str) -> str:
    (objective,) = report["objectives"]
    values = [row["values"][objective["name"]] for row in rows]
    sign, so_far = better(objective), np.minimum.accumulate([better(objective) * value for value in values])
    plane = Plane(Scale.of([0.0, *over], log=False, whole=name == TRIALS), scale(list(rows), objective), height=300)
    marks = [dot(plane.x(x), plane.y(y), row["trial"]) for x, y, row in zip(over, values, rows, strict=True)]
    corners = stairs([(plane.x(x), plane.y(sign * y)) for x, y in zip(over, so_far.tolist(), strict=True)],
                     plane.x(over[-1]))  # fmt: skip
    return plane.drawn(name, titled(objective), [path(corners, colour=FRONT, width=1.8), *marks], label="course")
