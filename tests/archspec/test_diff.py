"""Differences between architectures, in their own terms."""

from __future__ import annotations

from pathlib import Path

import pytest

from archspec.diff import diff, verdict
from archspec.spec import Spec, load, loads

ROOT = Path(__file__).parents[2]
TINY = (ROOT / "examples" / "tiny.yaml").read_text()


def changed(*edits: tuple[str, str]) -> tuple[Spec, Spec]:
    text = TINY
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    return loads(TINY), loads(text)


def told(*edits: tuple[str, str]) -> list[str]:
    return [str(change) for change in diff(*changed(*edits))]


def test_a_spec_does_not_differ_from_itself() -> None:
    old, new = changed()
    assert diff(old, new) == []
    assert verdict(old, new).startswith("identical")


def test_how_a_spec_is_written_makes_no_difference() -> None:
    old, new = changed(
        ("layer:", "other:"), ("body: layer", "body: other"), ("name: layers, ", ""), ("times: 4", "times: 8 / 2")
    )
    assert diff(old, new) == []
    assert verdict(old, new).startswith("identical")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("kv_heads: 2", "kv_heads: 1", ["layers.0-3.mixer.body: kv_heads 2 → 1"]),
        ("position: rope", "position: alibi", ["layers.0-3.mixer.body.position: kind rope → alibi"]),
        ("position: rope", "bias: true", ["layers.0-3.mixer.body: bias false → true",
                                          "layers.0-3.mixer.body.position: removed rope"]),
        ("norm: rms_norm", "norm: layer_norm", ["layers.0-3.mixer.norm: kind rms_norm → layer_norm",
                                                "layers.0-3.channel.norm: kind rms_norm → layer_norm"]),
        ("times: 4", "times: 5", ["layers: times 4 → 5", "layers.4: added residual → residual"]),
        ("times: 4", "times: 3", ["layers: times 4 → 3", "layers.3: removed residual → residual"]),
        ("  - lm_head", "  - {kind: lm_head, tied: true}", ["lm_head: tied false → true",
                                                            "lm_head: table none → token_embedding"]),
        ("position: rope", "position: rope, linears: {key: {kind: low_rank, rank: 8}}",
         ["layers.0-3.mixer.body.key: matrix linear → low_rank (rank 8)"]),
    ],
)  # fmt: skip
def test_changes_are_told_in_terms_of_the_architecture(old: str, new: str, said: list[str]) -> None:
    assert told((old, new)) == said


def test_rounds_with_the_same_change_are_told_together() -> None:
    edit = ("kv_heads: 2", "kv_heads: {each: [2, 1, 1, 2]}")
    assert told(edit) == ["layers.1-2.mixer.body: kv_heads 2 → 1"]
    assert told(("kv_heads: 2", "kv_heads: {each: [1, 2, 2, 1]}")) == [
        "layers.0.mixer.body: kv_heads 2 → 1",
        "layers.3.mixer.body: kv_heads 2 → 1",
    ]


def test_a_node_between_others() -> None:
    assert told(("  - rms_norm", "  - {kind: dropout, rate: 0.2}\n  - rms_norm")) == [
        "dropout: added dropout (rate 0.2)",
        "rms_norm: from layers → dropout",
    ]


def test_types_of_inputs_and_outputs() -> None:
    said = told(("vocab: 256", "vocab: 300"))
    assert "interface: vocab 256 → 300" in said
    assert any(line.startswith("input tokens: type") for line in said)
    assert any(line.startswith("output lm_head: type") for line in said)


def test_initialisation_and_rates_leave_the_structure() -> None:
    old, new = changed(
        ("name: tiny", "name: tiny\ninit: xavier"), ("norm: rms_norm", "norm: rms_norm\n    dropout: 0.1")
    )
    assert verdict(old, new).startswith("same structure")
    said = [str(change) for change in diff(old, new)]
    assert "init: kind normal → xavier" in said
    assert "layers.0-3.mixer: dropout 0 → 0.1" in said


@pytest.mark.parametrize("path", sorted((ROOT / "examples" / "zoo").glob("*.yaml")), ids=lambda path: path.stem)
def test_any_two_examples_can_be_compared(path: Path) -> None:
    old, new = loads(TINY), load(path)
    forth, back = diff(old, new), diff(new, old)
    assert forth
    assert sorted(change.what for change in forth if change.what in ("changed", "type")) == sorted(
        change.what for change in back if change.what in ("changed", "type")
    )
    assert diff(new, load(path)) == []
