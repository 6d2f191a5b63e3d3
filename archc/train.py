"""``archc train``: one model on one data set."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archc.files import echo_json, overrides, spec
from archc.options import Json, Plugins, Set
from archspec.errors import Problem, SpecError
from archspec.resolve import merge
from archspec.source import Map, read
from search import memory
from search.distributed import joined

if TYPE_CHECKING:
    from archspec.spec import Spec
    from search.data.batches import Data
    from search.distributed.group import Group
    from search.recipe import Recipe
    from search.recipes import Training


class Precision(StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"


def train(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A spec, or a recipe.")],
    data: Annotated[
        str | None,
        typer.Option("--data", help="text, digits, a file or folder of text, or YAML as {kind: text, path: books}."),
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Optimizer steps.")] = None,
    batch: Annotated[int | None, typer.Option("--batch", help="Samples of one forward pass.")] = None,
    length: Annotated[int | None, typer.Option("--length", help="Tokens of a sample.")] = None,
    accumulate: Annotated[int | None, typer.Option("--accumulate", help="Forward passes an optimizer step.")] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", help="The highest.")] = None,
    precision: Annotated[Precision | None, typer.Option("--precision", help="Of the arithmetic.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps, …")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of weights, batches and dropout.")] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="Other fields of a recipe, as {optimizer: {weight_decay: 0}}.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="runs/NAME by default.")] = None,
    set: Set = None,
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """Train a spec, or what a recipe says. Interrupted and given again, the same command goes on where it was.

    \b
        archc train examples/tiny.yaml --data text --steps 300 --length 128
        torchrun --nproc-per-node 8 -m archc train large.yaml --device cuda
    """
    said = {"steps": steps, "batch": batch, "length": length, "accumulate": accumulate, "learning_rate": learning_rate,
            "precision": precision and precision.value, "device": device, "seed": seed}  # fmt: skip
    with joined() as group:
        training = _training(file, set)
        checked = training.spec
        chosen = _recipe(training.train, {name: value for name, value in said.items() if value is not None}, recipe)
        folder = out or Path("runs") / checked.name
        silent = group is not None and group.rank > 0
        result = _train(checked, _data(data or training.data, checked), chosen, folder, group, quiet=json or silent)
    if silent:
        return
    if json:
        echo_json({"folder": str(folder), **result})
    else:
        typer.echo(
            f"{checked.name}: validation loss {result['validation_loss']:.4f}, "
            f"accuracy {result['validation_accuracy']:.1%}, after {result['steps']} steps; in {folder}"
        )


def _training(file: Path, changes: list[str] | None) -> Training:
    """What a file says, a spec or a recipe."""
    from search.recipes import Training, load_recipe

    if "archrecipe" in read(file):
        return load_recipe(file, set=overrides(changes))
    return Training(spec(file, changes), Map(), None)


def _recipe(base: Map, said: dict[str, Any], more: str | None) -> Recipe:
    from search.kinds import fields
    from search.recipe import Recipe

    further = _yaml(more, "--recipe") if more else Map()
    if not isinstance(further, Map):
        raise typer.BadParameter("a recipe is a mapping, as {optimizer: {weight_decay: 0}}", param_hint="--recipe")
    tree = merge(base, further)
    for name, value in said.items():
        tree.put(name, value, None, None)
    return fields(Recipe, tree, "train" if base else "")


def _data(said: Any, checked: Spec) -> Data:
    from search.data.batches import Data

    if said is None:
        said = "digits" if checked.interface.name_ == "image_classification" else "text"
    if not isinstance(said, str):
        return Data.read(said, "data", getattr(said, "mark", None))
    value = Map({"kind": "text", "path": said}) if Path(said).exists() else _yaml(said, "--data")
    return Data.read(value, "data", None)


def _yaml(text: str, option: str) -> Any:
    from archspec.source import parse

    return parse(f"value: {text}", option)["value"]


def _train(
    checked: Spec, data: Data, recipe: Recipe, folder: Path, group: Group | None, *, quiet: bool
) -> dict[str, Any]:
    from search.cost.price import price
    from search.fit import fit
    from search.outcome import TrainingFailed
    from search.train import device_of

    device_of(recipe)  # said before anything is read or priced
    recipe = recipe.resolved(checked)
    opened = data.open(checked.interface)
    if group is not None:
        group.settled(checked, recipe)
    size, together = (group.size, group.here) if group is not None else (1, 1)
    device = recipe.device if group is None else str(group.device)
    largest = checked.where(lambda course: course.ends[1])
    cost = price(largest, batch=recipe.batch // size, length=recipe.length)
    states = 16 * cost.parameters  # weights, gradients and two moments in float32, of which each process has a share
    need = cost.peak_training - states + states // size
    what = f"training {checked.name} in batches of {recipe.batch}"
    memory.require(need * together if device == "cpu" else need, what, device)

    def progress(step: int, of: int, loss: float) -> None:
        if not quiet and (step == of or step % max(1, of // 20) == 0):
            print(f"step {step:>6} of {of}  loss {loss:.4f}", file=sys.stderr, flush=True)

    try:
        _, result = fit(checked, opened, recipe, folder, progress=progress, group=group)
    except TrainingFailed as error:
        raise SpecError(Problem(f"{checked.name} cannot be trained so: {error.reason}")) from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; the same command goes on from what is saved in {folder}") from None
    return result.as_dict()
