"""Recipe files: a spec, the numbers that move, and how it is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from archspec.errors import SpecError
from archspec.moves import moved
from archspec.source import as_tree, read
from archspec.spec import load
from search.recipes import load_recipe, schema
from tests.archc.invoking import invoke
from tests.specs import EXAMPLES

FILES = sorted((EXAMPLES / "recipes").glob("*.yaml"))
MODEL = EXAMPLES / "growing_mixture.yaml"


def written(folder: Path, text: str) -> Path:
    file = folder / "recipe.yaml"
    file.write_text(f"archrecipe: 1\nmodel: {MODEL}\n{text}\n")
    return file


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_example_is_right_and_accepted_by_the_schema(file: Path) -> None:
    assert "recipe for" in invoke("check", file).stdout
    assert not list(Draft202012Validator(schema()).iter_errors(read(file)))


def test_moves_are_what_the_spec_could_have_said_itself(tmp_path: Path) -> None:
    made = load_recipe(written(tmp_path, 'moves: [{set: "**.router.k", values: {0: 2, 0.5: 8}}]')).spec
    said = load(MODEL, set={"blocks.layer.channel.router.k": {"bind": "step", "values": {"0": 2, "0.5": 8}}})
    assert (made.full, made.structure) == (said.full, said.structure)
    kinds = [node.kind.name_ for node in made.graph.nodes]
    assert kinds == [node.kind.name_ for node in load(MODEL).graph.nodes]


def test_a_pattern_means_whole_names() -> None:
    spec = load(EXAMPLES / "tiny.yaml")
    some = moved(spec, as_tree([{"set": "**.mixer.drop_path", "from": 0, "to": 0.2}]))
    assert {place.rsplit(".", 1)[1] for place in some.moving} == {"drop_path"}
    layer = some.graph.node("layers").bodies["rounds.0"]
    assert [bool(str(node.kind.drop_path) == "0 → 0.2") for node in layer.nodes] == [True, False]
    both = moved(spec, as_tree([{"set": "**.drop_*", "choose": [0, 0.1], "default": 0}]))
    assert all(
        str(node.kind.drop_path).startswith("drawn") for node in both.graph.node("layers").bodies["rounds.3"].nodes
    )
    rare = moved(load(MODEL), as_tree([{"set": "**.temperature", "from": 2, "to": 0.3}]))
    assert [str(value) for place, value in rare.moving.items() if place.endswith("temperature")] == ["2 → 0.3"]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ('moves: [{set: "**.router.kk", from: 1, to: 2}]', "no number is called '**.router.kk'"),
        ('moves: [{set: "**.router.temprature", from: 1, to: 2}]', "did you mean temperature?"),
        ('moves: [{set: "**.heads", from: 1, to: 2}]', "heads of attention cannot move in training"),
        ('moves: [{set: "**.router.k", from: 1, to: 9}]', "9 of 8 experts"),
        ('moves: [{set: "**.router.k", form: 1, to: 9}]', "did you mean from?"),
        ("moves: [{from: 1, to: 9}]", "a move says what it sets"),
        ("move: []", "there is no field 'move' here"),
        ("train: {steps: 0}", "steps is 0"),
        ("train: {steps: 10, freeze: ['**.ruter']}", "did you mean router?"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, text: str, cause: str) -> None:
    result = invoke("check", written(tmp_path, text), code=2)
    assert cause in result.stderr and result.stderr.count("\n  ") <= 2


def test_a_model_that_is_missing_is_told(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("archrecipe: 1\nmodel: nothing.yaml\n")
    with pytest.raises(SpecError, match="there is no file nothing.yaml"):
        load_recipe(tmp_path / "recipe.yaml")


def test_the_command_trains_what_it_says_and_options_come_first(tmp_path: Path) -> None:
    file = written(tmp_path, "name: grows\ntrain: {steps: 9, batch: 2, length: 16, validation_batches: 1}\ndata: text")
    found = invoke(
        "train", file, "--steps", 3, "--recipe", "{freeze: ['**.router']}", "--out", tmp_path / "out", "--json"
    )
    assert json.loads(found.stdout)["steps"] == 3
    said = json.loads((tmp_path / "out" / "result.json").read_text())
    assert said["name"] == "grows"
    recipe = said["identity"]["recipe"]
    assert (recipe["steps"], recipe["batch"]) == (3, 2)
    assert recipe["freeze"] == [{"parameters": "**.router", "after": 0.0}]
    assert load(tmp_path / "out" / "spec.yaml").moving
