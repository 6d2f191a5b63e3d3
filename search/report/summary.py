"""What a study found, as plain data: the front, every trial, what failed and what was refused.

The JSON (``"schema": 1``) has ``trials`` (counts), ``objectives``, ``front``, ``all``, ``refused``, ``survey`` (how
many random members of the space were ``drawn``, and what ``refused`` how many of them), ``surrogates`` (by objective
how well the last ones foretold), ``together`` (evaluations that were trained several at once), ``final``, ``text``,
``next``.
A trial has its ``values`` by objective, its ``choices`` by path, ``reason`` when it failed, when it ``started`` and
``ended``, its ``rungs`` (steps and the first objective after them, where it was trained in several) and what was
``predicted`` before its training (by objective the middle and the ends of an interval).
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from archspec.errors import Problem, SpecError
from search import storages
from search.front import front, label
from search.storage import Record, candidate, counted, valid

if TYPE_CHECKING:
    from search.study import Study

SCHEMA = 1
LONGER = 10  # times as many steps for the winner
STATES = {TrialState.COMPLETE: "complete", TrialState.FAIL: "failed", TrialState.RUNNING: "running"}
STOPPED = "stopped"  # early: what it had reached would not win


def read(folder: Path) -> dict[str, Any]:
    """The report of a study whose results and trials are in a folder.

    Errors:
        SpecError: there is no study.
    """
    if storages.found(folder) is None:
        hint = "name the folder of a study, as runs/demo; with a database elsewhere, name the study file"
        raise SpecError(Problem(f"there is no study in {folder}: it has no {storages.DATABASE}", hint))
    record = Record.existing(folder)
    try:
        return build(record)
    finally:
        record.close()


def read_study(study: Study, folder: Path) -> dict[str, Any]:
    """The report of a study, wherever its trials are.

    Args:
        folder: of its results.

    Errors:
        SpecError: it has not begun, or its storage cannot be opened.
    """
    if storages.within(study.storage):
        return read(folder)
    directions: list[str] = [objective.direction for objective in study.objectives]
    with closing(Record(study.storage, study.name, directions, folder)) as record:
        if record.recall("objectives") is None:
            cause = f"the storage has no study {study.name} that has begun"
            raise SpecError(Problem(cause, "run it with archc search", "storage", study.place("storage")))
        return build(record)


def build(record: Record) -> dict[str, Any]:
    """The report of a study on record, as JSON data."""
    trials = valid(record.trials())
    started = counted(trials)
    objectives: list[dict[str, str]] = record.recall("objectives") or []
    best = front(trials, [objective["direction"] for objective in objectives])
    winners = record.recall("winners") or {}
    refused: Counter[str] = Counter()
    for trial in trials:
        refused.update(candidate(trial).get("refused", {}))
    draws = sum(candidate(trial).get("draws", 1) for trial in started)
    states = Counter(STATES.get(trial.state, STOPPED) for trial in trials)
    names = [objective["name"] for objective in objectives]
    courses = _courses(trials)
    learned = [told for trial in trials if (told := candidate(trial).get("surrogates"))]
    said: dict[str, Any] = record.recall("identity") or {}
    return {
        "schema": SCHEMA,
        "study": record.name,
        "folder": str(record.folder),
        "objectives": objectives,
        "train": {key.removeprefix("train."): value for key, value in said.items() if key.startswith("train.")},
        "trials": {name: states[name] for name in [*STATES.values(), *([STOPPED] if states[STOPPED] else ())]},
        "draws": draws,
        "acceptance": len(started) / draws if draws else None,
        "refused": dict(refused.most_common()),
        "survey": record.recall("survey"),
        "surrogates": learned[-1] if learned else {},
        "together": _together(trials),
        "exhausted": record.recall("exhausted"),
        "front": [_member(rank, trial, names, courses, record.folder, winners) for rank, trial in enumerate(best, 1)],
        "all": [_trial(trial, names, courses) for trial in trials],
        "final": finals(record.folder),
        "text": winners.get("text"),
        "next": _next(record, best, said),
    }


def finals(folder: Path) -> list[dict[str, Any]]:
    """Those that were trained to the end, by rank: where, for how long, and their values then and in the search."""
    found = []
    for file in (folder / "final").glob("*/result.json"):
        stored = json.loads(file.read_text(encoding="utf-8"))
        if "values" in stored:
            found.append({"label": file.parent.name, "folder": str(file.parent), "trial": stored["trial"],
                          "steps": stored["training"]["steps"], "values": stored["values"],
                          "searched": stored["searched"]})  # fmt: skip
    return sorted(found, key=lambda one: int(one["label"].partition("-")[0]))


def _together(trials: list[FrozenTrial]) -> dict[str, Any] | None:
    """Evaluations that were trained several at once: how many, how many times as fast, their share of the training."""
    results = [trial.user_attrs["result"] for trial in trials if "result" in trial.user_attrs]
    seconds = [(result.get("seconds") or {}).get("training") or 0.0 for result in results]
    some = [result["together"]["times_as_fast"] for result in results if "together" in result]
    if not some:
        return None
    spent = sum(one for one, result in zip(seconds, results, strict=True) if "together" in result)
    return {"evaluations": len(some), "times_as_fast": sum(some) / len(some), "share": spent / (sum(seconds) or 1.0)}


def _courses(trials: list[FrozenTrial]) -> dict[int, list[list[float]]]:
    """Steps and the first objective after them, of each candidate and seed that has several, by its last trial."""
    told: dict[tuple[Any, Any], dict[int, tuple[int, float]]] = {}
    for trial in trials:
        result = trial.user_attrs.get("result", {})
        if "steps" in result and result.get("values"):
            key = candidate(trial).get("hash"), candidate(trial).get("seed")
            told.setdefault(key, {})[result["steps"]] = trial.number, next(iter(result["values"].values()))
    ends = {}
    for some in told.values():
        if len(some) > 1:
            ends[some[max(some)][0]] = [[float(steps), some[steps][1]] for steps in sorted(some)]
    return ends


def _member(
    rank: int,
    trial: FrozenTrial,
    names: list[str],
    courses: dict[int, list[list[float]]],
    folder: Path,
    winners: dict[str, Any],
) -> dict[str, Any]:
    place = folder / "pareto" / label(rank, trial) / "spec.yaml"
    beside = winners.get("side_by_side", {})
    name = candidate(trial).get("hash", "")[:16]
    return {
        "rank": rank,
        **_trial(trial, names, courses),
        "spec": str(place) if place.exists() else None,
        "side_by_side": {objective: rows.get(name) for objective, rows in beside.items()},
    }


def _trial(trial: FrozenTrial, names: list[str], courses: dict[int, list[list[float]]]) -> dict[str, Any]:
    result = trial.user_attrs.get("result", {})
    values = dict(zip(names, trial.values, strict=True)) if trial.state == TrialState.COMPLETE else None
    return {
        "trial": trial.number,
        "hash": candidate(trial).get("hash", ""),
        "state": STATES.get(trial.state, STOPPED),
        "values": values,
        "reason": trial.user_attrs.get("reason"),
        "choices": trial.params,
        "started": trial.datetime_start.isoformat() if trial.datetime_start else None,
        "ended": trial.datetime_complete.isoformat() if trial.datetime_complete else None,
        "rungs": courses.get(trial.number),
        "predicted": candidate(trial).get("predicted"),
        "validation_loss": result.get("validation_loss"),
        "validation_accuracy": result.get("validation_accuracy"),
        "seconds": result.get("seconds"),
        "threads": result.get("threads"),
    }


def _next(record: Record, best: list[FrozenTrial], said: dict[str, Any]) -> list[str]:
    """The command that trains the first winner for longer, as it was trained."""
    if not best:
        return []
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
