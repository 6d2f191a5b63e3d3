"""The canonical form: golden files make every change of a default visible; it is a spec again, with the same hashes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from archspec import spec

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
EXAMPLES = sorted([*(ROOT / "examples").glob("*.yaml"), *(ROOT / "examples" / "zoo").glob("*.yaml")])


def printed(loaded: spec.Spec) -> str:
    return yaml.safe_dump(loaded.canonical(), sort_keys=False, width=120)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_canonical_form_is_the_golden_one(path: Path) -> None:
    """``UPDATE_GOLDEN=1 pytest tests/archspec/test_canonical.py`` writes the files anew; read the diff."""
    loaded = spec.load(path)
    text = f"# structure {loaded.structure}\n# full {loaded.full}\n{printed(loaded)}"
    golden = GOLDEN / f"{path.stem}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert golden.read_text() == text


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_canonical_form_is_a_spec_of_the_same_hashes(path: Path) -> None:
    loaded = spec.load(path)
    again = spec.loads(printed(loaded))
    assert (again.structure, again.full) == (loaded.structure, loaded.full)
    assert printed(again) == printed(loaded)


LAYER = "{kind: transformer_layer, mixer: {kind: attention, heads: 4%s}, channel: {kind: mlp, %s}}"


def text(body: str, layers: str = "times: 3, body: layer", width: int = 32) -> str:
    return f"""
archspec: 1
interface: {{kind: causal_lm, vocab: 16, length: 8}}
dims: {{width: {width}}}
blocks: {{layer: {body}}}
graph:
  - {{kind: token_embedding, width: width}}
  - {{kind: repeat, {layers}}}
  - lm_head
"""


PLAIN = text(LAYER % ("", "hidden: 128"))


@pytest.mark.parametrize(
    "other",
    [
        text(LAYER % ("", "ratio: 4")),
        text(LAYER % ("", "hidden: 4 * width")),
        text(LAYER % ("", "hidden: 126, multiple_of: 64")),
        text(LAYER % (", head_width: 8, kv_heads: 4", "hidden: 128")),
        text(LAYER % ("", "hidden: 128"), "rounds: [layer, layer, layer]"),
        text(LAYER % ("", "hidden: 128"), "times: 3, body: [layer]").replace("body: [layer]", "body: layer"),
        text(LAYER % ("", "hidden: 64"), "times: 3, body: layer, overrides: {'0': big, '1': big, '2': big}").replace(
            "blocks: {", "blocks: {big: " + LAYER % ("", "hidden: 128") + ", "
        ),
    ],
)
def test_one_architecture_has_one_hash_however_it_is_written(other: str) -> None:
    assert spec.loads(other).full == spec.loads(PLAIN).full


@pytest.mark.parametrize(
    "other",
    [
        text(LAYER % ("", "hidden: 96")),
        text(LAYER % (", kv_heads: 2", "hidden: 128")),
        text(LAYER % (", position: rope", "hidden: 128")),
        text(LAYER % ("", "hidden: 128"), "times: 2, body: layer"),
        PLAIN.replace("length: 8", "length: 9").replace("lm_head", "learned_position\n  - lm_head"),
        PLAIN.replace("lm_head", "{kind: lm_head, tied: true}"),
    ],
)
def test_another_architecture_has_another_hash(other: str) -> None:
    assert spec.loads(other).structure != spec.loads(PLAIN).structure


@pytest.mark.parametrize("rate", ["dropout: 0.1", "drop_path: 0.2"])
def test_structure_ignores_rates_and_full_does_not(rate: str) -> None:
    other = spec.loads(PLAIN.replace("channel:", f"{rate}, channel:"))
    assert other.structure == spec.loads(PLAIN).structure
    assert other.full != spec.loads(PLAIN).full


def test_names_are_no_part_of_the_hash() -> None:
    renamed = (
        PLAIN.replace("{kind: repeat,", "{name: trunk, kind: repeat,")
        .replace("layer", "stage_layer")
        .replace("transformer_stage_layer", "transformer_layer")
    )
    assert spec.loads(renamed).full == spec.loads(PLAIN).full


def test_a_parameter_that_is_absent_leaves_its_field_unsaid() -> None:
    said = """
archspec: 1
name: small
interface: {kind: causal_lm, vocab: 9, length: 8}
blocks:
  layer:
    parameters: {window: absent}
    kind: transformer_layer
    mixer: {kind: attention, heads: 2, window: window}
graph: [{kind: token_embedding, width: 4}, NODE, lm_head]
"""
    open_, plain = (spec.loads(said.replace("NODE", node)) for node in ("layer", "{kind: layer, window: 2}"))
    assert "window" not in printed(open_)
    assert "window: 2" in printed(plain)


def test_a_body_may_number_a_node_as_the_stream_that_it_reads() -> None:
    loaded = spec.loads(
        "archspec: 1\ninterface: {kind: causal_lm, vocab: 16, length: 8}\ngraph:\n"
        "- {kind: token_embedding, width: 8}\n- {kind: project, width: 8}\n- {kind: project, width: 8}\n"
        "- {kind: residual, body: [rms_norm, {kind: project, width: 16}, {kind: project, width: 8}]}\n- lm_head"
    )
    assert spec.loads(printed(loaded)).full == loaded.full
