"""A form is what a spec computes, however it is written."""

from pathlib import Path

import pytest

from archspec.canonical import text
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
