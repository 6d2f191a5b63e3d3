"""Recipe files: how one model is trained, with the numbers that move meanwhile.

A recipe is no part of an architecture; what it makes is an ordinary spec in which numbers move, and a `Recipe`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from archspec.errors import Problem, SpecError
from archspec.moves import moved
from archspec.source import Map, Seq, read
from archspec.spec import Spec, header, load
from search.kinds import Fields, fields
from search.recipe import Recipe


class RecipeFields(Fields):
    """The keys of a recipe file."""

    archrecipe: Literal[1] = Field(description="format version")
    name: str | None = Field(None, description="of the model that comes of it; that of the spec by default")
    model: str = Field(description="the spec, relative to this file")
    moves: list[dict[str, Any]] = Field([], description="{set: pattern} with from and to, values, range or choose")
    data: Any = Field(None, description="as of a study")
    train: Recipe = Recipe()


def schema() -> dict[str, Any]:
    """The JSON Schema of recipe files."""
    found = RecipeFields.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found, "title": "archspec recipe"}


class Training(NamedTuple):
    """What a recipe file says.

    Attributes:
        train, data: as they stand in the file.
    """

    spec: Spec
    train: Map
    data: Any


def load_recipe(path: str | Path, *, set: Mapping[str, Any] | None = None) -> Training:
    """Reads a recipe file and the spec that it names.

    Args:
        set: values by path that replace what the spec says.

    Errors:
        SpecError: what is wrong with either.
    """
    tree = read(path)
    header(tree, "archrecipe", "recipe")
    said = fields(RecipeFields, tree)
    place = Path(path).parent / said.model
    if not place.exists():
        raise SpecError(
            Problem(f"there is no file {said.model}", "relative to this file", "model", tree.where("model"))
        )
    spec = moved(load(place, set=set), tree.get("moves", Seq()))
    if said.name is not None:
        spec.name = said.name
    return Training(spec, tree.get("train", Map()), tree.get("data"))
