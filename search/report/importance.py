"""Which choices matter: the share of each in what makes the better trials differ from the others.

PED-ANOVA (Watanabe, Bansal and Hutter 2023, arXiv 2304.10255) as Optuna computes it, also for choices that depend on
others.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, create_trial

from search.drawing import box, line, svg, text
from search.report.marks import GUIDE, Row, better, complete, grid

ENOUGH = 10  # trials, for shares that mean something
SHOWN = 12


def shares(report: Row) -> dict[str, dict[str, float]]:
    """By objective the share of each choice, the largest first; empty where there are too few trials."""
    rows = complete(report)
    varied = choices(rows)
    if len(rows) < ENOUGH or not varied:
        return {}
    distributions = {name: _distribution([row["choices"][name] for row in rows if name in row["choices"]])
                     for name in varied}  # fmt: skip
    objectives = report["objectives"]
    found: dict[str, dict[str, float]] = {}
    optuna.logging.set_verbosity(logging.ERROR)
    study = optuna.create_study(directions=["minimize"] * len(objectives))
    study.add_trials([_trial(row, distributions, [better(o) * row["values"][o["name"]] for o in objectives])
                      for row in rows])  # fmt: skip
    for number, objective in enumerate(objectives):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found[objective["name"]] = dict(
                    optuna.importance.get_param_importances(study, target=lambda trial: trial.values[number])  # noqa: B023 -- called at once
                )
        except (ValueError, RuntimeError):  # all trials have the same value
            continue
    return found


def choices(rows: Sequence[Row]) -> list[str]:
    """Paths of the choices that differ between trials, in the order of the spec."""
    seen: dict[str, set[str]] = {}
    for row in rows:
        for name in row["choices"]:
            seen.setdefault(name, set())
    for row in rows:
        for name, values in seen.items():
            if len(values) < 2:
                values.add(repr(row["choices"].get(name, "")))
    return [name for name, values in seen.items() if len(values) > 1]


def _distribution(values: Sequence[Any]) -> BaseDistribution:
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return FloatDistribution(float(min(values)), float(max(values)))
    return CategoricalDistribution(sorted(set(values), key=repr))


def _trial(row: Row, distributions: dict[str, BaseDistribution], values: list[float]) -> FrozenTrial:
    mine = {name: kind for name, kind in distributions.items() if name in row["choices"]}
    params = {name: float(row["choices"][name]) if isinstance(kind, FloatDistribution) else row["choices"][name]
              for name, kind in mine.items()}  # fmt: skip
    return create_trial(params=params, distributions=mine, values=values)


def drawings(report: Row, found: dict[str, dict[str, float]]) -> str:
    """Bars for each objective."""
    if not found:
        return f"<p>Told once there are {ENOUGH} complete trials whose choices and values differ.</p>"
    return grid([_bars(name, rows) for name, rows in found.items()])


def _bars(objective: str, rows: dict[str, float]) -> str:
    told = sorted(rows.items(), key=lambda row: -row[1])[:SHOWN]
    most = max((share for _, share in told), default=1.0) or 1.0
    left, width = 200.0, 450.0
    drawn = [text(0, 14, f"for {objective}", size=13)]
    for number, (name, share) in enumerate(told):
        top = 24 + 21 * number
        drawn += [
            text(left - 8, top + 12, clipped(name, 30), anchor="end"),
            box(left, top, (width - left - 48) * share / most, 15, GUIDE, f"{name}: {share:.1%}"),
            text(left + (width - left - 48) * share / most + 5, top + 12, f"{share:.0%}", colour="#555", size=11),
        ]
    bottom = 24 + 21 * len(told)
    if len(rows) > SHOWN:
        drawn.append(text(left, bottom + 12, f"and {len(rows) - SHOWN} others", colour="#777", size=11))
        bottom += 16
    return svg(
        bottom + 4, line(left, 20, left, bottom, colour="#999"), *drawn, label=f"choices for {objective}", width=width
    )


def clipped(words: str, most: int) -> str:
    """Words that are too long, without their beginning."""
    return words if len(words) <= most else "…" + words[1 - most :]
