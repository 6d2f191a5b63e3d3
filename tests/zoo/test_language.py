"""The specs of ``examples/zoo/language`` are the published models of ``language.yaml``, at full size.

Each has the parameters that its model has in `transformers`, and is what the model's configuration imports as.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from archspec.family import Family, family_of
from archspec.source import read
from archspec.spec import load
from compiler.model import compile
from search.cost.price import price

ZOO = Path(__file__).parents[2] / "examples" / "zoo" / "language"
ROWS = json.loads(json.dumps(read(Path(__file__).with_name("language.yaml"))))
each = pytest.mark.parametrize("name", ROWS)


def known(row: dict[str, Any]) -> Family:
    return family_of({"model_type": row["model_type"]})


def published(row: dict[str, Any]) -> int:
    """Parameters of the model in `transformers`; tables that are never trained are none."""
    config = transformers.AutoConfig.for_model(row["model_type"], **row["config"])
    with torch.device("meta"):
        model = getattr(transformers, row.get("model", known(row).architecture))(config)
    if "untied" in row:  # the class ties a head that the checkpoint has apart
        model.get_submodule(row["untied"]).weight = nn.Parameter(model.get_submodule(row["untied"]).weight.clone())
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_every_spec_has_a_row() -> None:
    assert sorted(ROWS) == sorted(path.stem for path in ZOO.glob("*.yaml"))


@each
def test_parameters_are_those_of_the_published_model(name: str) -> None:
    spec = load(ZOO / f"{name}.yaml")
    ours = compile(spec, device="meta")
    assert sum(p.numel() for p in ours.parameters()) == ROWS[name]["parameters"]
    assert published(ROWS[name]) == ROWS[name]["parameters"]
    if "active" in ROWS[name]:
        assert price(spec, length=16).active == ROWS[name]["active"]


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if "published" in row])
def test_active_parameters_are_the_published_billions(name: str) -> None:
    """Papers count what a token meets with all tables, without that of the embedding, or without the head as well."""
    row = ROWS[name]["published"]
    ours = compile(load(ZOO / f"{name}.yaml"), device="meta")
    counted = ROWS[name]["active"] - sum(ours.get_parameter(table).numel() for table in row.get("without", ()))
    digits = len(row["active"].partition(".")[2])
    assert f"{counted / 1e9:.{digits}f}" == row["active"]


@each
def test_spec_is_what_the_published_configuration_imports_as(name: str) -> None:
    row = ROWS[name]
    imported = known(row).expand({"model_type": row["model_type"], **row["config"]})
    assert imported.spec.structure == load(ZOO / f"{name}.yaml").structure
