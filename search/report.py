"""What a study found: the front as a table, as JSON, and as a plot, with what failed and what was refused.

The JSON (``"schema": 1``) has ``trials`` (counts), ``objectives``, ``front``, ``all``, ``refused``, ``text``, ``next``.
"""

from __future__ import annotations

import io
import json
import shlex
from collections import Counter
from pathlib import Path
from typing import Any, TextIO

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from archspec.errors import Problem, SpecError
from search.durable import write_json
from search.front import front, label
from search.progress import shown
from search.storage import DATABASE, Record, candidate, counted

SCHEMA = 1
LONGER = 10  # times as many steps for the winner
STATES = {TrialState.COMPLETE: "complete", TrialState.FAIL: "failed", TrialState.RUNNING: "running"}


def read(folder: Path) -> dict[str, Any]:
    """The report of a study whose results are in a folder, with an SQLite file.

    Errors:
        SpecError: there is no study.
    """
    if not (folder / DATABASE).is_file():
        hint = "name the folder of a study, as runs/demo; with a database elsewhere, name the study file"
        raise SpecError(Problem(f"there is no study in {folder}: it has no {DATABASE}", hint))
    record = Record.existing(folder)
    try:
        return build(record)
    finally:
        record.close()


def build(record: Record) -> dict[str, Any]:
    """The report of a study on record, as JSON data."""
    trials = counted(record.trials())
    objectives: list[dict[str, str]] = record.recall("objectives") or []
    best = front(trials, [objective["direction"] for objective in objectives])
    winners = record.recall("winners") or {}
    refused: Counter[str] = Counter()
    for trial in trials:
        refused.update(candidate(trial).get("refused", {}))
    draws = sum(candidate(trial).get("draws", 1) for trial in trials)
    states = Counter(STATES[trial.state] for trial in trials)
    return {
        "schema": SCHEMA,
        "study": record.name,
        "folder": str(record.folder),
        "objectives": objectives,
        "trials": {name: states[name] for name in STATES.values()},
        "draws": draws,
        "acceptance": len(trials) / draws if draws else None,
        "refused": dict(refused.most_common()),
        "exhausted": record.recall("exhausted"),
        "front": [_member(rank + 1, trial, record.folder, winners) for rank, trial in enumerate(best)],
        "all": [_trial(trial) for trial in trials],
        "text": winners.get("text"),
        "next": _next(record, best),
    }


def write(report: dict[str, Any], folder: Path) -> list[Path]:
    """Writes ``report.json`` and ``pareto.png``; what was written.

    Errors:
        NotSaved: the disk is full.
    """
    from search.plot import draw  # matplotlib takes a second to import

    write_json(folder / "report.json", report)
    written = [folder / "report.json"]
    if report["front"]:
        draw(report, folder / "pareto.png")
        written.append(folder / "pareto.png")
    return written


def show(report: dict[str, Any], stream: TextIO) -> None:
    """Prints the report: with colours and lines on a terminal, as plain text elsewhere."""
    terminal = stream.isatty()
    console = Console(file=stream, width=None if terminal else 10_000, no_color=not terminal, highlight=False)
    counts = ", ".join(f"{count} {name}" for name, count in report["trials"].items() if count)
    console.print(f"study {report['study']}: {counts or 'no trials'}", markup=False, soft_wrap=True)
    if report["front"]:
        console.print(_table(report, terminal))
    for name, count in report["refused"].items():
        console.print(f"{count:,} of {report['draws']:,} draws refused: {name}", markup=False, soft_wrap=True)
    reasons = Counter(row["reason"].splitlines()[0] for row in report["all"] if row["state"] == "failed")
    for reason, count in reasons.most_common():
        console.print(f"{count} failed: {reason}", markup=False, soft_wrap=True)
    if report["exhausted"]:
        console.print(f"the space is exhausted: {report['exhausted']}", markup=False, soft_wrap=True)
    if report["text"]:
        console.print("the first one writes:", markup=False, soft_wrap=True)
        for line in report["text"].split("\n"):
            # A model may write what a terminal would obey.
            console.print(
                "  | " + "".join(sign if sign.isprintable() else "\N{MIDDLE DOT}" for sign in line), markup=False
            )
    for command in report["next"]:
        console.print(f"next: {command}", markup=False, soft_wrap=True)


def text(report: dict[str, Any]) -> str:
    """What `show` prints to a file."""
    stream = io.StringIO()
    show(report, stream)
    return stream.getvalue()


def _table(report: dict[str, Any], terminal: bool) -> Table:
    table = Table(
        title="Pareto front" if terminal else None, box=None if not terminal else Table().box, pad_edge=terminal
    )
    arrows = {"minimize": "min", "maximize": "max"}
    table.add_column("rank", justify="right")
    table.add_column("trial", justify="right")
    for objective in report["objectives"]:
        table.add_column(f"{objective['name']} ({arrows[objective['direction']]})", justify="right")
    beside = list(report["front"][0]["side_by_side"])
    for name in beside:
        table.add_column(f"{name}, side by side", justify="right")
    table.add_column("spec", overflow="fold")
    for row in report["front"]:
        figures = [shown(row["values"][o["name"]], o["unit"]) for o in report["objectives"]]
        again = [
            f"{row['side_by_side'][name]['median_ms']:.4g} ms" if row["side_by_side"].get(name) else ""
            for name in beside
        ]
        table.add_row(str(row["rank"]), str(row["trial"]), *figures, *again, row["spec"] or "(on another machine)")
    return table


def _member(rank: int, trial: FrozenTrial, folder: Path, winners: dict[str, Any]) -> dict[str, Any]:
    place = folder / "pareto" / label(rank, trial) / "spec.yaml"
    beside = winners.get("side_by_side", {})
    name = candidate(trial)["hash"][:16]
    return {
        "rank": rank,
        **_trial(trial),
        "spec": str(place) if place.exists() else None,
        "choices": trial.params,
        "side_by_side": {objective: rows.get(name) for objective, rows in beside.items()},
    }


def _trial(trial: FrozenTrial) -> dict[str, Any]:
    result = trial.user_attrs.get("result", {})
    return {
        "trial": trial.number,
        "hash": candidate(trial)["hash"],
        "state": STATES[trial.state],
        "values": result.get("values"),
        "reason": trial.user_attrs.get("reason"),
        "validation_loss": result.get("validation_loss"),
        "validation_accuracy": result.get("validation_accuracy"),
        "seconds": result.get("seconds"),
        "threads": result.get("threads"),
    }


def _next(record: Record, best: list[FrozenTrial]) -> list[str]:
    """The command that trains the first winner for longer, as it was trained."""
    if not best:
        return []
    said: dict[str, Any] = record.recall("identity") or {}
    data = {name: said[f"data.{name}"] for name in ("kind", "path") if said.get(f"data.{name}") is not None}
    parts = ["archc", "train", str(record.folder / "pareto" / label(1, best[0]) / "spec.yaml")]
    parts += [
        "--data",
        data.get("path") or data.get("kind", "text"),
        "--steps",
        str(LONGER * said.get("train.steps", 100)),
    ]
    for option in ("batch", "length", "learning_rate", "device"):
        if said.get(f"train.{option}") is not None:
            parts += [f"--{option.replace('_', '-')}", str(said[f"train.{option}"])]
    return [shlex.join([*parts, "--out", str(record.folder / "winner")])]


def load(path: Path) -> dict[str, Any]:
    """A report that was written as JSON."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
