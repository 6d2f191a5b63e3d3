"""From a spec to what proxies look at: its initialised model and the first training batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

import compiler
from archspec.spec import Spec
from search.data.batches import Batch, DataSet
from search.objectives import Probed
from search.recipe import Recipe
from search.train import device_of


def probed(spec: Spec, data: DataSet, recipe: Recipe) -> Probed:
    """Builds a spec as its training would begin: weights by the recipe's seed, the batch of step 0, its device.

    Errors:
        SpecError: the data does not fit the recipe, or its device is not there.
    """
    device = device_of(recipe)
    model = compiler.compile(spec, device=device, dtype=torch.float32, seed=recipe.seed).eval()
    batch = data.batch(0, seed=recipe.seed, size=recipe.batch, length=recipe.length)
    inputs = {name: value.to(device) for name, value in batch.inputs.items()}
    return Probed(model, spec.interface.name_, Batch(inputs, batch.targets.to(device)))


def results(outputs: Tensor | Mapping[str, Any]) -> list[Tensor]:
    """All that a model gives but its losses."""
    if isinstance(outputs, Tensor):
        return [outputs]
    return [value for name, value in outputs.items() if name.rsplit(".", 1)[-1] != "loss"]
