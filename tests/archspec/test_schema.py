"""The JSON Schema accepts every right file and refuses what can be refused without reading the whole file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from archspec.kind import REGISTRY
from archspec.schema import schema
from archspec.source import parse, read

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "examples").rglob("*.yaml"), *(ROOT / "spaces" / "library").glob("*.yaml")])
SPECS = [path for path in FILES if "archspec" in read(path)]
SPACES = [path for path in FILES if "archspace" in read(path)]
STUDIES = [path for path in FILES if "archstudy" in read(path)]
Check = Callable[[Any], list[str]]


def checker(found: dict[str, Any]) -> Check:
    Draft202012Validator.check_schema(found)
    validator = Draft202012Validator(found)
    return lambda tree: [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(tree)]


@pytest.fixture(scope="module")
def spec() -> Check:
    return checker(schema())


@pytest.fixture(scope="module")
def space() -> Check:
    return checker(schema(space=True))


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_every_example_is_accepted(path: Path, spec: Check, space: Check) -> None:
    tree = read(path)
    assert spec(tree) == []
    tree.pop("archspec")
    assert space({"archspace": 1, **tree}) == [], "a spec with another header is a space without choices"


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_every_canonical_form_is_accepted(path: Path, spec: Check) -> None:
    from archspec.spec import load

    assert spec(json.loads(json.dumps(load(path).canonical()))) == []


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_every_library_space_is_accepted(path: Path, space: Check) -> None:
    assert space(read(path)) == []


def test_every_study_is_accepted() -> None:
    from search.study import schema as of_studies

    check = checker(of_studies())
    assert STUDIES
    for path in STUDIES:
        assert check(read(path)) == []


GOOD = """\
archspec: 1
interface: {kind: causal_lm, vocab: 256, length: 64}
dims: {width: 64}
blocks:
  layer: {kind: transformer_layer, mixer: {kind: attention, heads: 4}, channel: {kind: mlp, ratio: 4}}
graph:
  - {kind: token_embedding, width: width}
  - {name: layers, kind: repeat, times: 2, body: layer}
  - layer_norm
  - lm_head
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("heads: 4", "hedas: 4"),
        ("heads: 4", "heads: -4"),
        ("heads: 4", "heads: true"),
        ("heads: 4", "heads: [4]"),
        ("kind: mlp", "kind: rope"),
        ("kind: mlp, ratio: 4", "kind: mlp, activation: gelo"),
        ("times: 2", "times: 100000"),
        ("times: 2", "tmies: 2"),
        ("archspec: 1", "archspec: 2"),
        ("archspec: 1", "archspace: 1"),
        ("graph:", "grph:"),
        ("dims:", "dimms:"),
        ("vocab: 256, ", ""),
        ("kind: causal_lm", "kind: causal_ml"),
        ("name: layers", "name: 3layers"),
        ("heads: 4", "heads: {choose: [2, 4]}"),
    ],
)
def test_what_is_wrong_is_refused(old: str, new: str, spec: Check) -> None:
    assert spec(parse(GOOD)) == []
    assert spec(parse(GOOD.replace(old, new, 1))) != []


@pytest.mark.parametrize(
    "value",
    [
        "{choose: [2, 4], default: 2}",
        "{range: [2, 8], step: 2}",
        "{range: [1, 4], of: width}",
        "{each: [2, 4]}",
        "width / 16",
    ],
)
def test_values_may_be_choices_in_a_space(value: str, space: Check) -> None:
    text = GOOD.replace("archspec: 1", "archspace: 1").replace("heads: 4", f"heads: {value}")
    assert space(parse(text)) == []


def test_every_kind_is_described() -> None:
    for name in REGISTRY:
        definition = schema()["$defs"].get(f"kind.{name}")
        if definition is not None:
            assert definition["description"]
            assert definition["properties"]["kind"] == {"const": name}


def test_it_is_small_enough_for_an_editor() -> None:
    assert len(json.dumps(schema(space=True))) < 2_200 * len(REGISTRY)
