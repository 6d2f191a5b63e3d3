"""What a study wants to know of one candidate: trains it, and tells every objective."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from archspec.errors import Problem, SpecError
from search import memory, provenance
from search.cost import devices
from search.data.batches import DataSet
from search.durable import write_json
from search.fit import RESULT, fit, read_result
from search.limits import Limits
from search.locks import Quiet
from search.objectives import Objective, Priced, Trained
from search.proposals import Proposal
from search.recipe import Recipe
from search.study import Study
from search.train import Progress


@dataclass(frozen=True)
class Evaluation:
    """The objectives' values in their order, and what is kept with the trial."""

    values: list[float]
    result: dict[str, Any]


def evaluate(
    study: Study,
    proposal: Proposal,
    data: DataSet,
    folder: Path,
    *,
    progress: Progress | None = None,
    limits: Limits | None = None,
    quiet: Quiet | None = None,
) -> Evaluation:
    """Trains a candidate into its folder; all files are on the disk when this returns.

    Args:
        limits: on memory; that on time is up to who watches this process.
        quiet: keeps training and measuring apart among the processes of this machine.

    Errors:
        SpecError: training it needs more memory than there is, or than its limit.
        TrainingFailed, SpecError: as `search.fit.fit`.
        ValueError: an objective is not a finite number.
    """
    began = time.perf_counter()
    recipe, limits = proposal.stage.recipe.resolved(proposal.spec), limits or Limits()
    _require_memory(proposal.priced, recipe, limits)
    with limits.enforced(recipe.device):
        with quiet.working() if quiet else nullcontext():
            model, training = fit(proposal.spec, data, recipe, folder, progress=progress, until=proposal.stage.until)
            fitted = time.perf_counter()
            batch = next(data.validation(size=1, length=recipe.length, batches=1))
            trained = Trained(proposal.priced, model, training, batch.inputs)
            values = {o.name: _value(o, trained) for o in study.objectives if not provenance.measured(o)}
        if timed := [objective for objective in study.objectives if provenance.measured(objective)]:
            with quiet.measuring() if quiet else nullcontext():
                values |= {objective.name: _value(objective, trained) for objective in timed}
    values = {objective.name: values[objective.name] for objective in study.objectives}
    for name, value in values.items():
        if not abs(value) < float("inf"):
            raise ValueError(f"{name} is {value}")
    measured = time.perf_counter()
    result = {
        "values": values,
        "steps": training.done,
        "validation_loss": training.validation_loss,
        "validation_accuracy": training.validation_accuracy,
        "bits_per_byte": training.bits_per_byte,
        "seconds": {
            "training": training.wall_seconds,
            "fit": fitted - began,
            "objectives": measured - fitted,
        },
        "threads": torch.get_num_threads(),
        "made": provenance.of_result(study, data.fingerprint),
    }
    if (stored := read_result(folder)) is not None:  # a run that is paused has none
        write_json(folder / RESULT, {**stored, "choices": proposal.params, **result})
    return Evaluation(list(values.values()), result)


def _value(objective: Objective, trained: Trained) -> float:
    return objective.after(trained) if objective.needs_training else objective.before(trained.candidate)


def _require_memory(priced: Priced, recipe: Recipe, limits: Limits) -> None:
    """Refuses what would bring the process down."""

    def need(batch: int) -> int:
        price = priced.price(batch=batch, length=recipe.length, dtype="float32", device=devices.names()[0])
        return int(price["memory"]["peak_training"])

    there = memory.available(recipe.device)
    least = min((free for free in (there, limits.bytes) if free is not None), default=None)
    # Nothing grows faster than the batch, and the price of a single sample is mostly known already.
    if least is None or need(1) * recipe.batch <= least:
        return
    what, whole = f"training it in batches of {recipe.batch}", need(recipe.batch)
    memory.require(whole, what, recipe.device)
    if limits.bytes is not None and whole > limits.bytes:
        cause = f"{what} needs {memory.shown(whole)} of memory; its limit is {memory.shown(limits.bytes)}"
        raise SpecError(Problem(cause, "raise limits.memory, or bound {kind: training_memory} by a constraint"))
