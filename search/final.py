"""The chosen ones trained to the end: ``final/<rank>-<hash>/`` holds the spec, the weights and what came of them.

Each folder is what ``compiler.load`` reads. It is whole once it has a ``result.json``; a run that was stopped goes on
from its checkpoint, and several processes share the work, each taking a folder that no other has locked.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from optuna.trial import FrozenTrial
from torch import Tensor

import archspec.spec
import compiler
from archspec.errors import Problem, SpecError
from archspec.source import Map
from archspec.spec import Spec
from search import memory
from search.cost import devices
from search.durable import not_saved, write_json
from search.fit import RESULT, fit, read_result
from search.front import front, label
from search.kinds import fields
from search.objectives import Priced, Trained
from search.outcome import TrainingFailed
from search.progress import Display, shown
from search.recipe import Recipe
from search.session import OpenStudy, prices
from search.storage import candidate
from search.study import Study

FOLDER = "final"
LONGER = 10  # times as many steps as in the search, if nothing else is said
CHOICES = "front for all of it, knee, best (in the first objective), or a number for so many, spread over the front"


@dataclass(frozen=True)
class Final:
    """A chosen one after its training: its values by objective, or why there are none."""

    folder: Path
    trial: int
    values: Mapping[str, float] | None
    reason: str | None = None


def recipe(study: Study, steps: int | None = None) -> Recipe:
    """The recipe of the search, with the fields that ``final:`` of the study file says, or ten times its steps.

    Args:
        steps: instead of those of the file.

    Errors:
        SpecError: a field of ``final:`` is wrong.
    """
    said = study.tree.get("final", Map())
    if not isinstance(said, Map):
        raise SpecError(Problem("final is no mapping", "as final: {steps: 2000}", "final", study.tree.where("final")))
    whole = _over(study.recipe.model_dump(mode="json", exclude_none=True), said)
    found = fields(Recipe, whole, "final")
    longer = steps or (found.steps if "steps" in said else LONGER * study.recipe.steps)
    return found.model_copy(update={"steps": longer})


def _over(usual: Mapping[str, Any], said: Map) -> Map:
    """What is said, and where nothing is, what is usual."""
    whole = said.move(*said)
    for key, value in usual.items():
        if key not in whole:
            whole[key] = _over(value, Map()) if isinstance(value, dict) else value
        elif isinstance(whole[key], Map) and isinstance(value, dict):
            whole[key] = _over(value, whole[key])
    return whole


def choose(best: Sequence[FrozenTrial], directions: Sequence[str], how: str) -> list[tuple[int, FrozenTrial]]:
    """Members of a front, with their ranks.

    Args:
        best: the front, the best in the first objective first.
        how: see `CHOICES`.

    Errors:
        SpecError: there is no such choice.
    """
    if how not in ("front", "best", "knee") and not re.fullmatch(r"[1-9]\d*", how):
        raise SpecError(Problem(f"{how!r} chooses nothing", CHOICES, "--choose"))
    ranked = list(enumerate(best, 1))
    if how == "front" or not ranked:
        return ranked
    if how == "best":
        return ranked[:1]
    if how in ("knee", "1"):
        return [ranked[_knee(best, directions)]]
    places = np.linspace(0, len(ranked) - 1, min(int(how), len(ranked))).round().astype(int)
    return [ranked[place] for place in places]


def _knee(best: Sequence[FrozenTrial], directions: Sequence[str]) -> int:
    """The member farthest from the plane through the front's ends, each objective as a share of the front's range.

    Das 1999, "On characterizing the 'knee' of the Pareto curve based on normal-boundary intersection", Structural
    Optimization 18.
    """
    signs = np.array([-1.0 if direction == "maximize" else 1.0 for direction in directions])
    points = signs * np.array([trial.values for trial in best])
    low, reach = points.min(axis=0), np.ptp(points, axis=0)
    return int(((points - low) / np.where(reach > 0, reach, 1)).sum(axis=1).argmin())


def train(
    study: Study, folder: Path, *, how: str = "front", steps: int | None = None, quiet: bool = False
) -> list[Final]:
    """Trains the chosen members of a study's front, one after the other.

    Args:
        folder: of the study's results.
        how: see `CHOICES`.
        steps: optimizer steps of each; by default those of `recipe`.

    Errors:
        SpecError: the choice or the recipe is wrong, the study cannot be opened, or the disk is full.
    """
    longer = recipe(study, steps)
    found: list[Final] = []
    with closing(OpenStudy(study, folder)) as opened:
        directions = [objective.direction for objective in study.objectives]
        chosen = choose(front(opened.record.trials(), directions), directions, how)
        with Display(study.objectives, len(chosen), quiet=quiet) as display:
            for number, (rank, trial) in enumerate(chosen):
                display.done(number)
                one = _one(opened, longer, folder / FOLDER / label(rank, trial), trial, display)
                display.say(_line(one, study))
                found.append(one)
            display.done(len(chosen))
    return found


def _one(opened: OpenStudy, longer: Recipe, place: Path, trial: FrozenTrial, display: Display) -> Final:
    with _locked(place) as mine:
        if not mine:
            return Final(place, trial.number, None, "another process trains it")
        spec = _spec(opened, trial)
        need = prices(spec, batch=longer.batch, length=longer.length, device=devices.names()[0])
        try:
            memory.require(int(need["memory"]["peak_training"]), f"training it in batches of {longer.batch}",
                           longer.device)  # fmt: skip
        except SpecError as error:
            return Final(place, trial.number, None, error.problems[0].cause)
        try:
            return Final(place, trial.number, _trained(opened.study, opened, spec, longer, place, trial, display))
        except TrainingFailed as error:
            return Final(place, trial.number, None, error.reason)


def _trained(
    study: Study, opened: OpenStudy, spec: Spec, longer: Recipe, place: Path, trial: FrozenTrial, display: Display
) -> dict[str, float]:
    data = opened.data(spec.interface)
    model, training = fit(spec, data, longer, place, progress=display.step)
    stored = read_result(place)
    assert stored is not None
    if "values" in stored:
        known: dict[str, float] = stored["values"]
        return known
    inputs = next(data.validation(size=1, length=longer.length, batches=1)).inputs
    trained = Trained(Priced(spec, longer, prices), model, training, inputs)
    values = {o.name: o.after(trained) if o.needs_training else o.before(trained.candidate) for o in study.objectives}
    write_json(place / RESULT, {
        **stored,
        "trial": trial.number,
        "values": values,
        "searched": dict(zip(values, trial.values, strict=True)),
        "choices": trial.params,
        "loaded_again": _difference(model, place, inputs),
    })  # fmt: skip
    return values


def _difference(model: Any, place: Path, inputs: Mapping[str, Tensor]) -> float:
    """The largest difference between outputs of the trained model and of what was saved of it."""
    device = next(model.parameters()).device
    given = {name: value.to(device) for name, value in inputs.items()}
    outputs = []
    for one in (model, compiler.load(place, device=device)):
        one.eval()
        with torch.no_grad():
            outputs.append(_logits(one(**given)))
    return float((outputs[0] - outputs[1]).abs().max())


def _logits(outputs: Any) -> Tensor:
    found: Tensor = outputs["logits"] if isinstance(outputs, Mapping) else outputs
    return found


def _spec(opened: OpenStudy, trial: FrozenTrial) -> Spec:
    """A trial's spec: from its files, or made anew where it was trained on another machine."""
    file = opened.folder / "trials" / candidate(trial)["hash"][:16] / "spec.yaml"
    return archspec.spec.load(file) if file.is_file() else opened.space.candidate(trial.params).spec


def _line(one: Final, study: Study) -> str:
    if one.values is None:
        return f"{one.folder}  {one.reason}"
    units = {objective.name: objective.unit for objective in study.objectives}
    return f"{one.folder}  " + "  ".join(f"{name} {shown(value, units[name])}" for name, value in one.values.items())


@contextmanager
def _locked(place: Path) -> Iterator[bool]:
    """Whether this process has the folder for itself."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        handle = os.open(place / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise not_saved(place, error) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            mine = False
        else:
            mine = True
        yield mine
    finally:
        os.close(handle)
