"""A study of twelve small candidates that trains in a moment, as files."""

import textwrap
from pathlib import Path

import pytest

from search import plugins
from search.objectives import Objective
from tests.search.studies import MEETS

SPACE = """
    archspace: 1
    name: tiny
    interface: {kind: image_classification, image: [8, 8, 1], classes: 10}
    dims: {width: {choose: [8, 12, 16]}}
    graph:
      - {kind: patch_embedding, size: 4, width: width}
      - kind: transformer_layer
        norm: {choose: [layer_norm, rms_norm]}
        mixer: {kind: attention, heads: 2}
        channel: {kind: mlp, hidden: 2 * width_in, activation: {choose: [gelu, relu]}}
      - {kind: pool, how: mean}
      - classifier
"""

STUDY = """
    archstudy: 1
    name: tiny
    space: space.yaml
    data: digits
    train: {steps: 4, batch: 8}
    objectives: [validation_loss, parameters]
    sampler: random
    trials: 3
    workers: 0
"""


@pytest.fixture
def study_file(tmp_path):
    """Writes the space and the study, with lines of the study replaced or added; its path."""

    def write(**lines: str) -> Path:
        (tmp_path / "space.yaml").write_text(textwrap.dedent(SPACE))
        kept = [line for line in textwrap.dedent(STUDY).strip().splitlines() if line.split(":")[0] not in lines]
        added = [f"{name}: {value}" for name, value in lines.items()]
        path = tmp_path / "study.yaml"
        path.write_text("\n".join([*kept, *added]) + "\n")
        return path

    return write


@pytest.fixture
def meeting(tmp_path):
    """The file of an objective ``test/meets``, which the first trials of two workers end together."""
    path = tmp_path / "meets.py"
    path.write_text(MEETS)
    plugins.load([path])
    yield path
    Objective.registered.pop("test/meets")
