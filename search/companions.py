"""Further seeds of a candidate, trained along with one that is due, where that measures faster than one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import fx

import compiler
from archspec.errors import SpecError
from search.data.batches import DataSet
from search.durable import NotSaved
from search.fidelity.alike import reason
from search.fidelity.together import faster, train_together
from search.outcome import TrainingFailed
from search.proposals import Proposal
from search.recipe import Recipe
from search.train import Progress, device_of

FASTER = 1.2  # times, at least: the noise might have spared the study some of the seeds
STEPS = 60  # of a training for which measuring pays


def times_as_fast(proposals: Sequence[Proposal], data: DataSet) -> float | None:
    """How many times as fast evaluations of one spec are trained together; None where that is no gain, or cannot be."""
    recipes = _recipes(proposals)
    if len(recipes) < 2 or recipes[0].steps < STEPS:
        return None
    try:
        models = _models(proposals, recipes)
        if reason(models, data, recipes) is not None:
            return None
        times = faster(models, data, recipes)
    except (TrainingFailed, SpecError, MemoryError, RuntimeError):  # alone each tells its own reason
        return None
    return times if times >= FASTER else None


def train(proposals: Sequence[Proposal], data: DataSet, folders: Sequence[Path], progress: Progress) -> bool:
    """Trains evaluations of one spec together, into checkpoints from which `search.fit.fit` goes on.

    Returns:
        Whether it was done; if not, each goes on by itself from the checkpoint that it has.

    Errors:
        NotSaved: the disk is full.
    """
    recipes = _recipes(proposals)
    try:
        train_together(_models(proposals, recipes), data, recipes, folders=folders, progress=progress)
    except NotSaved:
        raise
    except (TrainingFailed, SpecError, ValueError, MemoryError, RuntimeError):
        return False
    return True


def _recipes(proposals: Sequence[Proposal]) -> list[Recipe]:
    return [proposal.stage.recipe.resolved(proposal.spec) for proposal in proposals]


def _models(proposals: Sequence[Proposal], recipes: Sequence[Recipe]) -> list[fx.GraphModule]:
    return [
        compiler.compile(proposal.spec, device=device_of(recipe), dtype=torch.float32, seed=recipe.seed)
        for proposal, recipe in zip(proposals, recipes, strict=True)
    ]
