"""Which models can be trained together: those that differ in numbers alone, and whose step is what it is alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import fx, nn

from archspec.errors import SpecError
from compiler import moving
from search.data.batches import DataSet
from search.fidelity.together import Together, run_of
from search.recipe import Recipe

OWN = {"seed", "learning_rate"}  # what recipes of members may differ in
CLOSE = 1e-3  # of a loss or a gradient's norm, to count as equal to that alone


def reason(models: Sequence[nn.Module], data: DataSet, recipes: Sequence[Recipe]) -> str | None:
    """Why models cannot be trained together; None if a step of copies was for each the one that it makes alone."""
    if len(models) < 2:
        return "there is one model alone"
    first = recipes[0].model_dump(exclude=OWN)
    if any(recipe.model_dump(exclude=OWN) != first for recipe in recipes):
        return "their recipes differ in more than seed and learning rate"
    if recipes[0].freeze is not None:
        return "parameters that freeze are trained alone"
    if next(moving.numbers(models[0]), None) is not None:
        return "numbers move in training"
    if (unlike := _unlike(models)) is not None:
        return unlike
    try:
        with torch.random.fork_rng([]):
            return _tried([copy.deepcopy(model) for model in models], data, recipes)
    except (RuntimeError, TypeError, SpecError) as error:  # `vmap` has no form of some operator
        return str(error).strip().splitlines()[0].split(". ")[0]


def _tried(models: Sequence[nn.Module], data: DataSet, recipes: Sequence[Recipe]) -> str | None:
    group = Together([copy.deepcopy(model) for model in models], data, recipes)
    group.members.model.train()
    values = group.losses(0)
    group.backward(torch.stack([value.task + value.added for value in values]))
    norms = torch.linalg.vector_norm(group.gradients, dim=1)
    for number, (model, recipe) in enumerate(zip(models, recipes, strict=True)):
        run = run_of(model, data, recipe)
        model.train()
        torch.manual_seed(recipe.seed * 1_000_003)
        value = run.loss(data.batch(0, seed=recipe.seed, size=recipe.batch, length=recipe.length))
        total = value.task + value.added
        total.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        pairs = [(values[number].task + values[number].added, total), (norms[number], norm)]
        if any(abs(here.item() - there.item()) > CLOSE * abs(there.item()) for here, there in pairs):
            return f"a step of model {number} together is not its step alone"
    return None


def _unlike(models: Sequence[nn.Module]) -> str | None:
    """What sets some models apart, beside their weights and the rates of dropout modules."""
    parts = [dict(model.named_modules()) for model in models]
    for other in parts[1:]:
        if parts[0].keys() != other.keys():
            name = min(parts[0].keys() ^ other.keys())
            return f"only one of them has {name}"
        for name, here in parts[0].items():
            if (what := _differs(here, other[name])) is not None:
                return f"they differ in {f'{name}.{what}'.strip('.')}"
    return None


def _differs(here: nn.Module, there: nn.Module) -> str | None:
    for kind in ("_parameters", "_buffers"):
        shapes = [{k: v if v is None else (v.shape, v.dtype, v.requires_grad) for k, v in getattr(m, kind).items()}
                  for m in (here, there)]  # fmt: skip
        if shapes[0] != shapes[1]:
            return next(name for name in {**shapes[0], **shapes[1]} if shapes[0].get(name) != shapes[1].get(name))
    if isinstance(here, fx.GraphModule):
        codes = [getattr(m, "codes", None) or m.code for m in (here, there)]
        return None if codes[0] == codes[1] else "code"
    plain = [{k: v for k, v in vars(m).items() if isinstance(v, (bool, int, float, str, tuple)) and k != "training"}
             for m in (here, there)]  # fmt: skip
    mine, theirs = plain
    free = {"p"} if isinstance(here, nn.Dropout) else set()
    return next((k for k in {**mine, **theirs} if k not in free and mine.get(k) != theirs.get(k)), None)
