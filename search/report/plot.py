"""The trials of a study and their front, as a PNG."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from search.durable import not_saved
from search.progress import shown

DOMINATED, FRONT = "#9aa5b1", "#c2410c"


def draw(report: dict[str, Any], path: Path) -> None:
    """Plots the first objective against each other one; a single objective over the trials.

    Errors:
        NotSaved: the disk is full.
    """
    objectives = report["objectives"]
    others = objectives[1:]
    figure, axes = pyplot.subplots(
        1, max(1, len(others)), figsize=(6.4 * max(1, len(others)), 4.6), squeeze=False, layout="constrained"
    )
    try:
        for axis, other in zip(axes[0], others or [None], strict=True):
            if other is None:
                _course(axis, report, objectives[0])
            else:
                _plane(axis, report, other, objectives[0], front_is_whole=len(objectives) == 2)
        complete = report["trials"]["complete"]
        figure.suptitle(f"{report['study']}: {complete} trials, {len(report['front'])} on the front")
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        figure.savefig(beside, dpi=144, format="png", metadata={"Software": None})
        os.replace(beside, path)
    except OSError as error:
        raise not_saved(path, error) from None
    finally:
        pyplot.close(figure)


def _plane(axis: Axes, report: dict[str, Any], x: dict[str, str], y: dict[str, str], *, front_is_whole: bool) -> None:
    best = {row["trial"] for row in report["front"]}
    rows = [row for row in report["all"] if row["values"]]
    xs, ys = ([row["values"][axis_of["name"]] for row in rows if row["trial"] not in best] for axis_of in (x, y))
    axis.scatter(xs, ys, s=22, color=DOMINATED, label="trials", zorder=2)
    front = sorted((row["values"][x["name"]], row["values"][y["name"]], row["rank"]) for row in report["front"])
    fx, fy = [point[0] for point in front], [point[1] for point in front]
    if front_is_whole:  # with three objectives, the front is no line in a plane
        axis.step(fx, fy, where="post" if x["direction"] == "minimize" else "pre", color=FRONT, linewidth=1.2, zorder=1)
    axis.scatter(fx, fy, s=34, color=FRONT, label="Pareto front", zorder=3)
    for left, up, rank in front:
        axis.annotate(str(rank), (left, up), textcoords="offset points", xytext=(5, 5), fontsize=8, color=FRONT)
    _scale(axis, "x", x, [row["values"][x["name"]] for row in rows])
    _scale(axis, "y", y, [row["values"][y["name"]] for row in rows])
    axis.legend(frameon=False)


def _course(axis: Axes, report: dict[str, Any], objective: dict[str, str]) -> None:
    rows = [row for row in report["all"] if row["values"]]
    numbers, values = [row["trial"] for row in rows], [row["values"][objective["name"]] for row in rows]
    better = min if objective["direction"] == "minimize" else max
    so_far = [better(values[: n + 1]) for n in range(len(values))]
    axis.scatter(numbers, values, s=22, color=DOMINATED, label="trials", zorder=2)
    axis.step(numbers, so_far, where="post", color=FRONT, linewidth=1.4, label="best so far", zorder=1)
    axis.set_xlabel("trial")
    _scale(axis, "y", objective, values)
    axis.legend(frameon=False)


def _scale(axis: Axes, which: str, objective: dict[str, str], values: list[float]) -> None:
    """Names an axis with its unit and better side; logarithmic where figures span more than ten times."""
    unit = f" [{objective['unit']}]" if objective["unit"] else ""
    better = "lower" if objective["direction"] == "minimize" else "higher"
    axis.set(**{f"{which}label": f"{objective['name']}{unit}, {better} is better"})
    if min(values) > 0 and max(values) > 10 * min(values):
        axis.set(**{f"{which}scale": "log"})
        scale = axis.xaxis if which == "x" else axis.yaxis
        scale.set_major_locator(LogLocator(subs=(1, 2, 5)))
        scale.set_major_formatter(FuncFormatter(lambda value, _: shown(value, "")))
        scale.set_minor_formatter(NullFormatter())
    axis.grid(True, color="#e5e7eb", linewidth=0.6)
    axis.set_axisbelow(True)
