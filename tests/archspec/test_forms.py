"""A form is what a spec computes, however it is written."""

from pathlib import Path

import pytest

from archspec.canonical import text
from archspec.errors import SpecError
from archspec.recognition.forms import differences, form
from archspec.spec import load, loads

ZOO = sorted(Path("examples/zoo").rglob("*.yaml"))
HEAD = "archspec: 1\nname: one\ninterface: {kind: causal_lm, vocab: 50, length: 16}\n"
BLOCK = "{kind: residual, norm: rms_norm, body: {kind: attention, heads: 2}}"


@pytest.mark.parametrize("path", ZOO, ids=lambda path: path.stem)
def test_the_canonical_form_of_a_spec_has_its_form(path: Path) -> None:
    spec = load(path)
    again = loads(text(spec.canonical()))
    assert not [one for one in differences(form(spec), form(again)) if one.what != "free"]


def test_repeats_lists_and_names_make_no_difference() -> None:
    ends = "  - {kind: token_embedding, width: 8}\n%s  - {kind: lm_head}\n"
    repeated = loads(HEAD + "graph:\n" + ends % f"  - {{name: a, kind: repeat, times: 3, body: {BLOCK}}}\n")
    listed = loads(HEAD + "graph:\n" + ends % f"  - [{BLOCK}, {{kind: dropout, rate: 0.1}}, {BLOCK}]\n  - {BLOCK}\n")
    found = differences(form(repeated), form(listed))
    assert [one.path for one in found] == ["residual.then.dropout"]
    names = dict(zip(form(repeated).named(), form(listed).named(), strict=True))
    assert names["a.2.residual.body"] == "residual.body"


def test_numbers_wiring_and_ties_make_a_difference() -> None:
    def of(width: int, last: str = "") -> str:
        words = f"  - {{name: words, kind: token_embedding, width: {width}}}\n"
        norms = "  - {name: a, kind: rms_norm}\n  - {name: b, kind: rms_norm}\n"
        return f"{HEAD}graph:\n{words}{norms}  - {{kind: lm_head{last}}}\n"

    base = form(loads(of(8)))
    for other in (of(16), of(8, ", tied: true"), of(8, ", from: a")):
        assert [one for one in differences(base, form(loads(other))) if one.what != "free"]


HANDING = """
blocks:
  feed: {parameters: {size: 8}, kind: mlp, hidden: size, activation: relu}
  layer: {parameters: {size: 8}, kind: residual, body: {kind: feed, size: 2 * size}}
graph:
  - {kind: token_embedding, width: 8}
  - {kind: repeat, times: 2, body: %s}
  - lm_head
"""


@pytest.mark.parametrize("size", ["{each: [8, 16]}", "{each: [8, 4 * (index + 3)]}"])
def test_a_block_hands_on_what_varies_by_round(size: str) -> None:
    handed = loads(HEAD + HANDING % f"{{kind: layer, size: {size}}}")
    plain = "{kind: residual, body: {kind: mlp, hidden: {each: [16, 32]}, activation: relu}}"
    assert handed.structure == loads(HEAD + HANDING % plain).structure


@pytest.mark.parametrize(
    ("size", "said"),
    [("{each: [8, 16, 24]}", "3 values for 2 rounds"), ("{each: [8, -1]}", "-2 is out of range")],
)
def test_what_does_not_vary_by_these_rounds_is_refused(size: str, said: str) -> None:
    with pytest.raises(SpecError, match=said) as raised:
        loads(HEAD + HANDING % f"{{kind: layer, size: {size}}}")
    assert len(raised.value.problems) == 1


def test_without_rounds_nothing_varies() -> None:
    with pytest.raises(SpecError, match="each: needs rounds"):
        loads((HEAD + HANDING % "layer").replace("- lm_head", "- {kind: layer, size: {each: [8]}}\n  - lm_head"))
