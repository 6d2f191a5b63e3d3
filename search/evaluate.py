"""What a study wants to know of one candidate: trains it, and tells every objective."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from search import memory
from search.cost import devices
from search.data.batches import DataSet
from search.durable import write_json
from search.fit import RESULT, fit, read_result
from search.objectives import Priced, Trained
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
    study: Study, proposal: Proposal, data: DataSet, folder: Path, *, progress: Progress | None = None
) -> Evaluation:
    """Trains a candidate into its folder; all files are on the disk when this returns.

    Errors:
        SpecError: training it needs more memory than there is.
        TrainingFailed, SpecError: as `search.fit.fit`.
        ValueError: an objective is not a finite number.
    """
    began = time.perf_counter()
    recipe = study.recipe.resolved(proposal.spec)
    _require_memory(proposal.priced, recipe)
    model, training = fit(proposal.spec, data, recipe, folder, progress=progress)
    fitted = time.perf_counter()
    batch = next(data.validation(size=1, length=recipe.length, batches=1))
    trained = Trained(proposal.priced, model, training, batch.inputs)
    values = {
        objective.name: objective.after(trained) if objective.needs_training else objective.before(proposal.priced)
        for objective in study.objectives
    }
    for name, value in values.items():
        if not abs(value) < float("inf"):
            raise ValueError(f"{name} is {value}")
    measured = time.perf_counter()
    stored = read_result(folder)
    assert stored is not None
    result = {
        "values": values,
        "validation_loss": training.validation_loss,
        "validation_accuracy": training.validation_accuracy,
        "bits_per_byte": training.bits_per_byte,
        "seconds": {
            "training": training.wall_seconds,
            "fit": fitted - began,
            "objectives": measured - fitted,
        },
        "threads": torch.get_num_threads(),
    }
    write_json(folder / RESULT, {**stored, "choices": proposal.params, **result})
    return Evaluation(list(values.values()), result)


def _require_memory(priced: Priced, recipe: Recipe) -> None:
    """Refuses what would bring the process down."""

    def need(batch: int) -> int:
        price = priced.price(batch=batch, length=recipe.length, dtype="float32", device=devices.names()[0])
        return int(price["memory"]["peak_training"])

    there = memory.available(recipe.device)
    # Nothing grows faster than the batch, and the price of a single sample is mostly known already.
    if there is not None and need(1) * recipe.batch > there:
        memory.require(need(recipe.batch), f"training it in batches of {recipe.batch}", recipe.device)
