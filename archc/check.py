"""``archc check``: is the file right, and what is it?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archc.files import HEADERS, overrides
from archc.options import Json, Plugins, Set
from archspec.errors import Problem, SpecError

if TYPE_CHECKING:
    from archspec.source import Map


def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Specs, spaces, studies or recipes.")],
    set: Set = None,
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """Check files: specs, spaces, studies and recipes.

    Prints one line for each file, or everything that is wrong with it. With --json, one object a line.

    \b
        archc check examples/tiny.yaml
    """
    failed = False
    for file in files:
        try:
            found = facts(file, overrides(set))
        except SpecError as error:
            failed = True
            if json:
                _echo({"file": str(file), "ok": False, "problems": [_plain(problem) for problem in error.problems]})
            else:
                print(error, file=sys.stderr)
            continue
        if json:
            _echo({"file": str(file), "ok": True, **found})
        else:
            typer.echo(_line(found))
    if failed:
        raise typer.Exit(2)


def facts(file: Path, changes: Map) -> dict[str, Any]:
    """What a check tells of a file.

    Errors:
        SpecError: all that is wrong with it.
    """
    from archspec.resolve import resolve
    from archspec.source import read

    tree = read(file)
    header = next((word for word in HEADERS if word in tree), None)
    if header == "archspec":
        return _spec(resolve(tree, changes))
    if header == "archspace":
        return _space(file, changes)
    if header == "archstudy":
        if changes:
            raise SpecError(
                Problem("--set changes specs and spaces, not studies", mark=changes.where(next(iter(changes))))
            )
        return _study(file)
    if header == "archrecipe":
        return _recipe(file, changes)
    hint = "start with archspec: 1 (a spec), archspace: 1 (a space), archstudy: 1 (a study) or archrecipe: 1 (a recipe)"
    raise SpecError(Problem("the file does not say what it is", hint, mark=tree.mark))


def _spec(tree: Map) -> dict[str, Any]:
    from archspec.show import count, layers
    from archspec.spec import from_tree

    spec = from_tree(tree)
    return {
        "kind": "spec",
        "name": spec.name,
        "interface": spec.interface.name_,
        "layers": layers(spec.graph),
        "nodes": count(spec.graph),
        "inputs": {name: str(stream) for name, stream in spec.interface.streams().items()},
        "outputs": {name: str(stream) for name, stream in spec.graph.types.items()},
        "structure": spec.structure,
        "full": spec.full,
    }


def _space(file: Path, changes: Map) -> dict[str, Any]:
    from random import Random

    from spaces.space import load
    from spaces.survey import check

    space = load(file, set=changes)
    survey = check(space, Random(0))
    members = space.cardinality()
    return {
        "kind": "space",
        "name": space.name,
        "interface": space.sample(Random(0)).spec.interface.name_,
        "choices": len(space.slots),
        "members": {"at_least": members.low, "at_most": members.high, "text": str(members)},
        "accepted": survey.accepted,
    }


def _study(file: Path) -> dict[str, Any]:
    from search.study import load

    study = load(file)
    space = study.members()
    return {
        "kind": "study",
        "name": study.name,
        "space": space.name,
        "choices": len(space.slots),
        "objectives": [objective.name for objective in study.objectives],
        "constraints": [str(bound) for bound in study.bounds],
        "trials": study.trials,
    }


def _recipe(file: Path, changes: Map) -> dict[str, Any]:
    import compiler
    from search.freezing import Freezing
    from search.kinds import fields
    from search.recipe import Recipe
    from search.recipes import load_recipe

    training = load_recipe(file, set=changes)
    spec, recipe = training.spec, fields(Recipe, training.train, "train")
    frozen = Freezing(compiler.compile(spec, device="meta"), recipe.freeze, recipe.steps)
    return {
        "kind": "recipe",
        "name": spec.name,
        "interface": spec.interface.name_,
        "steps": recipe.steps,
        "moving": {place: str(number) for place, number in spec.moving.items()},
        "frozen": len(frozen.until),
        "structure": spec.structure,
        "full": spec.full,
    }


def _line(found: dict[str, Any]) -> str:
    if found["kind"] == "spec":
        parts = [found["interface"], f"{found['layers']} layers", f"{found['nodes']} nodes",
                 f"structure {found['structure'][:8]}", f"full {found['full'][:8]}"]  # fmt: skip
    elif found["kind"] == "recipe":
        counts = ((len(found["moving"]), "number", "move"), (found["frozen"], "parameter", "freeze"))
        parts = [f"recipe for {found['interface']}", f"{found['steps']} steps",
                 *(f"{count} {what}{'s' * (count != 1)} {does}" for count, what, does in counts),
                 f"full {found['full'][:8]}"]  # fmt: skip
    elif found["kind"] == "space":
        parts = [f"space of {found['interface']}", f"{found['choices']} choices", f"{found['members']['text']} members",
                 f"{found['accepted']:.0%} of samples accepted"]  # fmt: skip
    else:
        parts = [f"study of {found['space']}", f"{found['choices']} choices", ", ".join(found["objectives"]),
                 *found["constraints"], f"{found['trials']} trials"]  # fmt: skip
    return f"{found['name']}: {' · '.join(parts)}"


def _plain(problem: Problem) -> dict[str, Any]:
    mark = problem.mark
    return {
        "file": mark.file if mark else None,
        "line": mark.line if mark else None,
        "column": mark.column if mark else None,
        "path": problem.path,
        "cause": problem.cause,
        "hint": problem.hint,
    }


def _echo(found: dict[str, Any]) -> None:
    typer.echo(json.dumps(found, ensure_ascii=False))
