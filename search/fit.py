"""One spec trained into a folder: ``spec.yaml``, ``weights.safetensors`` and ``result.json``.

``result.json`` is written last, so that a folder that has it is whole. Until then the folder holds a checkpoint, and
the same call goes on from it; afterwards the same call trains nothing. A run may be paused on purpose, and goes on when
its candidate is promoted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

import compiler
from archspec.errors import Problem, SpecError
from archspec.spec import Spec
from search import checkpoint
from search.data.batches import DataSet
from search.durable import NotSaved, write_json
from search.outcome import TrainingResult
from search.recipe import Recipe
from search.study import differences
from search.train import Progress, device_of, train

if TYPE_CHECKING:
    from search.distributed.group import Group

RESULT = "result.json"


def fit(
    spec: Spec,
    data: DataSet,
    recipe: Recipe,
    folder: Path,
    *,
    progress: Progress | None = None,
    save_seconds: float = 10.0,
    until: int | None = None,
    group: Group | None = None,
) -> tuple[fx.GraphModule, TrainingResult]:
    """Compiles and trains a spec.

    Args:
        recipe: of any spec; it is resolved for this one.
        folder: created if missing; a run that was interrupted or paused there goes on, a finished one is loaded.
        save_seconds: least time between checkpoints.
        until: pauses after so many steps, as `search.train.train` does; what is in the folder then goes on later.
        group: processes that train it together, each calling this with the same; they share the folder. The model that
            each is given has its share of the numbers, of a run that was finished before none.

    Errors:
        TrainingFailed: the loss became NaN or infinite, or memory ran out.
        SpecError: the folder holds another run, or the disk is full.
    """
    recipe = recipe.resolved(spec)
    identity = {"spec": spec.full, "data": data.fingerprint, "recipe": recipe.model_dump(mode="json")}
    stored = read_result(folder)
    if stored is not None:
        changed = differences(_flat(stored["identity"]), _flat(identity))
        if changed:
            hint = "name another folder, or remove this one"
            raise SpecError(Problem(f"{folder} holds another training run: {'; '.join(changed)}", hint))
        done = TrainingResult.from_dict(stored["training"])
        return (
            compiler.load(folder, device=device_of(recipe)) if group is None else compiler.compile(spec, device="meta")
        ), done
    if group is None:
        model = compiler.compile(spec, device=device_of(recipe), dtype=torch.float32, seed=recipe.seed)
    else:
        model = group.build(spec, recipe)
    result = train(
        model, data, recipe, folder=folder, progress=progress, save_seconds=save_seconds, until=until, group=group
    )
    if result.done < recipe.steps:
        return model, result
    try:
        compiler.save(model, folder) if group is None else group.save(model, folder)
    except SpecError as error:
        raise NotSaved(*error.problems) from None
    if group is not None and group.rank:
        return model, result
    training = result.as_dict()
    write_json(folder / RESULT, {"schema": 1, "name": spec.name, "identity": identity, "training": training})
    (folder / checkpoint.NAME).unlink(missing_ok=True)
    return model, result


def read_result(folder: Path) -> dict[str, Any] | None:
    """What ``result.json`` says, or None if the folder has none."""
    path = folder / RESULT
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SpecError(Problem(f"{path} cannot be read: {error}", "remove it to train anew")) from None
    return found


def _flat(identity: dict[str, Any]) -> dict[str, Any]:
    recipe = {f"recipe.{name}": value for name, value in identity["recipe"].items()}
    return {"spec": identity["spec"], "data": identity["data"], **recipe}
