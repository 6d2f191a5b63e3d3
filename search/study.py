"""A study file: which space is searched, on which data, for what, within what.

::

    archstudy: 1
    name: demo
    space: language_model                 # a space of the library, or a path relative to this file
    data: {kind: text}
    train: {steps: 60, batch: 16, length: 128, learning_rate: 3e-3}
    objectives: [validation_loss, {kind: latency, measured: true}]
    constraints: [{kind: parameters, at_most: 3e6}]
    sampler: frontier
    trials: 24
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, field_validator

from archspec.errors import Mark, Problem, SpecError, did_you_mean
from archspec.resolve import resolve
from archspec.source import Map, Seq, read
from archspec.spec import header
from search import proxies  # noqa: F401  registers its objectives
from search.bounds import read_bounds
from search.data.batches import Data
from search.fidelity.rungs import Halving
from search.kinds import Fields, fields, shown
from search.limits import Limits
from search.objectives import Bound, Objective
from search.recipe import Recipe
from spaces import space as spaces
from spaces.space import Space, library, library_file

T = TypeVar("T")

SOURCES = ("frontier", "random", "evolution", "local", "grid")  # of our own; the others are Optuna's
SamplerName = Literal["frontier", "random", "evolution", "local", "grid", "tpe", "nsga2", "nsga3", "gp", "cmaes", "qmc"]
SINGLE = ("cmaes",)  # samplers of one objective
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class StudyFields(Fields):
    """What a study file may say at its top level; the parts with kinds are read one by one."""

    archstudy: Literal[1]
    name: str = Field(description="names the folder of its results")
    description: str = ""
    space: str = Field(description="a path relative to the study file, or the name of a space of the library")
    freeze: Any = Field(default_factory=dict, description="choices of the space that are settled, by path")
    data: Any = Field(description="what is trained on")
    train: Any = Field(default_factory=dict, description="the recipe of every candidate")
    objectives: list[Any] = Field(min_length=1, description="figures to trade off")
    constraints: list[Any] = Field(default_factory=list, description="figures of the spec with at_most or at_least")
    sampler: SamplerName = Field("frontier", description="how candidates are proposed")
    seed: int = Field(0, ge=0, description="of the sampler; that of training is in the recipe")
    trials: int = Field(24, ge=1, description="how many candidates are trained; may be raised later")
    workers: int = Field(1, ge=0, description="processes that train at the same time; 0: in the one that was called")
    fidelities: Any = Field(None, description="the rungs on which candidates are trained further; none: all to the end")
    seeds: int = Field(1, ge=1, description="at most, for candidates whose place on the front the noise leaves open")
    limits: Any = Field(default_factory=dict, description="what one candidate may take")
    final: Any = Field(default_factory=dict, description="what --then train changes in train; ten times its steps")
    storage: str = Field("sqlite", description="sqlite or journal for a file beside the results, or a database URL")

    @field_validator("name")
    @classmethod
    def _is_a_folder_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError("the name is not fit for a folder: letters, digits, '.', '_' and '-' are")
        return name


@dataclass(frozen=True)
class Study:
    """A study file, read and checked."""

    file: str
    name: str
    space: Path
    freeze: Mapping[str, Any]
    data: Data
    recipe: Recipe
    objectives: tuple[Objective, ...]
    bounds: tuple[Bound, ...]
    sampler: SamplerName
    seed: int
    trials: int
    fidelities: Halving | None
    seeds: int
    workers: int
    limits: Limits
    storage: str
    tree: Map

    def place(self, path: str) -> Mark | None:
        """Where the file says something, for an error about it."""
        found = re.match(r"([^.\[]*)(?:\[(\d+)\])?", path)
        assert found is not None
        key, number = found.groups()
        part = self.tree.get(key)
        return part.where(int(number)) if number and isinstance(part, Seq) else self.tree.where(key)

    def members(self) -> Space:
        """The space that is searched, with what is frozen settled.

        Errors:
            SpecError: the space is wrong, or something frozen is not among its choices.
        """
        space = spaces.load(self.space)
        try:
            return space.freeze(self.freeze) if self.freeze else space
        except SpecError as error:
            raise SpecError(*(p if p.mark else p._replace(mark=self.place("freeze")) for p in error.problems)) from None

    def identity(self) -> dict[str, Any]:
        """All that makes its trials comparable, flat: what may not change while results are kept."""
        parts = {
            "space": resolve(read(self.space)),
            "freeze": dict(sorted(self.freeze.items())),
            "data": self.data.model_dump(mode="json"),
            "train": self.recipe.model_dump(mode="json"),
            "objectives": [objective.name for objective in self.objectives],
            "constraints": [str(bound) for bound in self.bounds],
            "fidelities": self.fidelities and self.fidelities.model_dump(mode="json"),
            "sampler": self.sampler,
            "seed": self.seed,
        }
        return dict(_flat("", json.loads(json.dumps(parts))))


def load(path: str | os.PathLike[str], *, freeze: Mapping[str, Any] | None = None) -> Study:
    """Reads and checks a study file.

    Args:
        freeze: more choices that are settled, before those of the file.

    Errors:
        SpecError: every independent problem of the file, with its place.
    """
    tree = read(path)
    header(tree, "archstudy", "study")
    problems: list[Problem] = []
    top: StudyFields | None = _collect(problems, lambda: fields(StudyFields, tree))
    data = _collect(problems, lambda: Data.read(tree["data"], "data", tree.where("data"))) if "data" in tree else None
    recipe = _collect(problems, lambda: fields(Recipe, _mapping(tree, "train"), "train"))
    limits = _collect(problems, lambda: fields(Limits, _mapping(tree, "limits"), "limits"))
    fidelities = _collect(problems, lambda: _fidelities(tree, recipe))
    settled = _collect(problems, lambda: _mapping(tree, "freeze"))
    objectives = _objectives(problems, tree)
    bounds = read_bounds(_list(tree, "constraints"), problems)
    space = _collect(problems, lambda: _space(Path(path), tree)) if isinstance(tree.get("space"), str) else None
    if top is not None and top.sampler in SINGLE and len(objectives) > 1:
        cause = f"{top.sampler} searches for one objective, there are {len(objectives)}"
        problems.append(Problem(cause, "try sampler: frontier", "sampler", tree.where("sampler")))
    if problems:
        raise SpecError(*problems)
    assert top is not None and data is not None and recipe is not None
    assert limits is not None and space is not None and settled is not None
    for key, value in (freeze or {}).items():
        where = freeze.where(key) if isinstance(freeze, Map) else None
        settled.put(key, value, where, where)
    return Study(
        file=os.fspath(path),
        name=top.name,
        space=space,
        freeze=settled,
        data=data,
        recipe=recipe,
        objectives=objectives,
        bounds=bounds,
        sampler=top.sampler,
        seed=top.seed,
        trials=top.trials,
        fidelities=fidelities,
        seeds=top.seeds,
        workers=top.workers,
        limits=limits,
        storage=top.storage,
        tree=tree,
    )


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two identities, as sentences by path."""
    said = []
    for path in sorted({*then, *now}):
        if path not in now:
            said.append(f"{path} was {shown(then[path])}, is gone")
        elif path not in then:
            said.append(f"{path} is new: {shown(now[path])}")
        elif then[path] != now[path]:
            said.append(f"{path} was {shown(then[path])}, is {shown(now[path])}")
    return said


def schema() -> dict[str, Any]:
    """The JSON Schema of study files, with every registered kind of data and objective."""
    result = StudyFields.model_json_schema()
    definitions: dict[str, Any] = {}

    def kinds(role: type[Data] | type[Objective], extra: dict[str, Any]) -> dict[str, Any]:
        names = sorted(role.kinds())
        options: list[dict[str, Any]] = [] if extra else [{"enum": names}]
        for kind in dict.fromkeys(role.kinds().values()):
            one = kind.model_json_schema()
            definitions.update(one.pop("$defs", {}))
            one["properties"] |= extra
            one["required"] = sorted({"kind", *one.get("required", [])})
            options.append(one)
        return {"anyOf": options}

    bounds = {bound: {"type": "number"} for bound in ("at_most", "at_least")}
    recipe = Recipe.model_json_schema()
    definitions.update(recipe.pop("$defs", {}))
    limits = Limits.model_json_schema()
    fidelities = Halving.model_json_schema()
    definitions.update(fidelities.pop("$defs", {}))
    properties = result["properties"]
    properties["data"] |= kinds(Data, {})
    properties["train"] |= recipe
    properties["limits"] |= limits
    properties["fidelities"] |= {"anyOf": [fidelities, {"type": "null"}]}
    properties["final"] |= recipe
    properties["objectives"]["items"] = kinds(Objective, {})
    properties["constraints"]["items"] = kinds(Objective, bounds)
    return {
        **result,
        "title": "archspec study",
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$defs": definitions,
    }


def _collect(problems: list[Problem], read_part: Callable[[], T]) -> T | None:
    try:
        return read_part()
    except SpecError as error:
        problems.extend(error.problems)
        return None


def _mapping(tree: Map, key: str) -> Map:
    value = tree.get(key, Map())
    if not isinstance(value, Map):
        raise SpecError(Problem(f"{key} is {shown(value)}; it should be a mapping", None, key, tree.where(key)))
    return value


def _list(tree: Map, key: str) -> Seq:
    """A list of the file; that it is one is checked with the other top-level fields."""
    value = tree.get(key)
    return value if isinstance(value, Seq) else Seq()


def _objectives(problems: list[Problem], tree: Map) -> tuple[Objective, ...]:
    found: dict[str, Objective] = {}
    items = _list(tree, "objectives")
    for number, item in enumerate(items):
        path, mark = f"objectives[{number}]", items.where(number)
        objective = _collect(problems, lambda: Objective.read(item, path, mark))  # noqa: B023 -- called at once
        if objective is not None and objective.name in found:
            problems.append(Problem(f"{objective.name} stands twice", "name each objective once", path, mark))
        elif objective is not None:
            found[objective.name] = objective
    return tuple(found.values())


def _fidelities(tree: Map, recipe: Recipe | None) -> Halving | None:
    if tree.get("fidelities") is None:
        return None
    found = fields(Halving, _mapping(tree, "fidelities"), "fidelities")
    try:
        if recipe is not None:
            found.levels(recipe)
    except SpecError as error:
        raise SpecError(*(p._replace(mark=tree.where("fidelities")) for p in error.problems)) from None
    return found


def _space(file: Path, tree: Map) -> Path:
    said = tree["space"]
    beside = file.parent / Path(said).expanduser()
    if beside.is_file():
        return beside
    if said in library():
        return library_file(said)
    if said.endswith((".yaml", ".yml")):
        raise SpecError(Problem(f"there is no file {beside}", None, "space", tree.where("space")))
    cause = f"there is no space {said!r}, neither in the library nor as a file"
    raise SpecError(Problem(cause, did_you_mean(said, library()), "space", tree.where("space")))


def _flat(path: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [pair for key, part in value.items() for pair in _flat(f"{path}.{key}" if path else str(key), part)]
    if isinstance(value, list) and any(isinstance(part, (dict, list)) for part in value):
        return [pair for number, part in enumerate(value) for pair in _flat(f"{path}[{number}]", part)]
    return [(path, value)]
