"""What a study found, as files to go on with: ``pareto/<rank>-<hash>/`` holds the spec and the weights of each winner.

Latencies that were measured one trial at a time are measured again, all winners in turn, so that they can be compared.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import archspec.spec
import compiler
from archspec.errors import SpecError
from compiler.text import Text
from search.data.text import TextSet
from search.durable import not_saved
from search.front import front, label
from search.latency import measure, resized
from search.objectives import Latency
from search.session import OpenStudy
from search.storage import candidate

FOLDER = "pareto"
PROMPT, TEMPERATURE = "def ", 0.7


def write(opened: OpenStudy) -> None:
    """Copies the winners' files, measures them side by side, and has the first one write some text.

    Errors:
        NotSaved: the disk is full; the trials are untouched.
    """
    study = opened.study
    best = front(opened.record.trials(), [objective.direction for objective in study.objectives])
    folders = [opened.folder / "trials" / candidate(trial)["hash"][:16] for trial in best]
    here = [folder for folder in folders if folder.is_dir()]  # others were trained on another machine
    with opened.record.alone():
        _copy(
            opened.folder / FOLDER,
            {label(n + 1, t): f for n, (t, f) in enumerate(zip(best, folders, strict=True)) if f in here},
        )
    hashes = [candidate(trial)["hash"] for trial in best]
    if not here or (opened.record.recall("winners") or {}).get("hashes") == hashes:
        return
    opened.record.remember("winners", {"hashes": hashes, **_looked_at(opened, here)})


def _looked_at(opened: OpenStudy, folders: list[Path]) -> dict[str, Any]:
    study = opened.study
    models = [compiler.load(folder, device=study.recipe.device) for folder in folders]
    data = opened.data(archspec.spec.load(folders[0] / "spec.yaml").interface)
    found: dict[str, Any] = {}
    inputs = next(data.validation(size=1, length=study.recipe.length, batches=1)).inputs
    for objective in study.objectives:
        if isinstance(objective, Latency) and objective.measured:
            given = resized(inputs, batch=objective.batch, length=objective.length)
            times = measure(models, given, repeats=objective.repeats, threads=objective.threads)
            rows = zip(folders, times, strict=True)
            found.setdefault("side_by_side", {})[objective.name] = {f.name: taken._asdict() for f, taken in rows}
    if isinstance(data, TextSet) and data.interface.name_ == "causal_lm":
        found["text"] = _continued(models[0], study.recipe.length or inputs["tokens"].shape[1])
    return found


def _continued(model: Any, length: int) -> str | None:
    """Text that a model of bytes goes on with, as long as what it was trained on; none if it cannot decode."""
    text = Text()
    start = text.encode(PROMPT)
    try:
        found = compiler.generate(model, [start], tokens=max(0, length - len(start)), temperature=TEMPERATURE)
    except SpecError:
        return None
    return PROMPT + text.decode(found[0])


def _copy(place: Path, winners: dict[str, Path]) -> None:
    beside = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        for name, folder in winners.items():
            (beside / name).mkdir(parents=True)
            for file in sorted(folder.iterdir()):
                try:
                    os.link(file, beside / name / file.name)  # costs no space
                except OSError:
                    shutil.copy2(file, beside / name / file.name)
        if place.exists():
            shutil.rmtree(place)
        if beside.exists():
            beside.rename(place)
    except OSError as error:
        raise not_saved(place, error) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
