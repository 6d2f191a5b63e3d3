"""``archc space``."""

import json
from pathlib import Path

import pytest

from archspec.spec import load as load_spec
from spaces.locating import locate
from spaces.space import load
from tests.archc.invoking import invoke

TINY = Path("examples/tiny.yaml")
SMALL = """
archspace: 1
name: small
interface: {kind: causal_lm, vocab: 16, length: 8}
dims: {width: {choose: [8, 12]}}
graph:
  - {kind: token_embedding, width: width}
  - kind: repeat
    vary: each
    times: 2
    body: {kind: residual, body: {choose: [{kind: attention, heads: {choose: [2, 3]}}, {kind: mlp, ratio: 2}]}}
  - lm_head
"""


@pytest.fixture
def small(tmp_path):
    (tmp_path / "small.yaml").write_text(SMALL)
    return tmp_path / "small.yaml"


def test_a_space_is_described(small):
    text = invoke("space", small).output
    assert "small: 5 choices · 18 members" in text
    assert "dims.width" in text
    assert "[8] | 12" in text
    assert "graph[1].body[*].body.attention.heads  [2] | 3  (2 times)" in text
    assert "refused: " in text  # 3 heads of 8 features
    facts = json.loads(invoke("space", small, "--json").output)
    assert facts["members"]["at_least"] == facts["members"]["at_most"] == 18
    assert 0 < facts["accepted"] < 1
    assert sum(one["count"] for one in facts["refused"]) == round(200 * (1 - facts["accepted"]))
    assert facts["parameters"]["least"] <= facts["parameters"]["median"] <= facts["parameters"]["most"]


def test_members_are_listed_sampled_and_frozen(small, tmp_path):
    listed = json.loads(invoke("space", small, "--list", "--json").output)
    assert len(listed) == 2**2 + 3**2  # with 8 features, 3 heads do not divide
    frozen = json.loads(invoke("space", small, "--list", "--freeze", "dims.width=8", "--json").output)
    assert len(frozen) == 4
    drawn = json.loads(invoke("space", small, "--sample", 5, "--out", tmp_path / "members", "--json").output)
    assert len({one["structure"] for one in drawn}) == 5
    assert {one["structure"] for one in drawn} <= {one["structure"] for one in listed}
    for one in drawn:
        spec = load_spec(one["file"])
        assert spec.structure == one["structure"]
        assert locate(load(small), spec.tree).spec.structure == one["structure"]
    near = json.loads(invoke("space", small, "--neighbours", drawn[0]["file"], "--json").output)
    assert near
    assert drawn[0]["structure"] not in {one["structure"] for one in near}
    assert {one["structure"] for one in near} <= {one["structure"] for one in listed}


def test_a_space_around_a_spec(tmp_path):
    out = tmp_path / "space.yaml"
    invoke("space", TINY, "--vary", "ffn,heads,kv_heads,depth", "-o", out)
    assert load(out).default().spec.full == load_spec(TINY).full
    assert "tiny: " in invoke("check", out).output
    assert "times=3" in invoke("space", out, "--neighbours", TINY).output
    assert invoke("space", TINY, "--vary", "depth").output.startswith("archspace: 1")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{small}", "--freeze", "dims.widht=8"], "--freeze:1:12  dims.widht\n  no choice has this path"),
        (["{small}", "--freeze", "dims.width"], "'dims.width' freezes nothing\n  write --freeze path=value"),
        (["{small}", "--freeze", "dims.width=9"], "9 cannot be chosen here\n  there are 8, 12"),
        (["{small}", "--neighbours", TINY], "no member of small"),
        (["{small}", "--sample", 2, "--list"], "give one of"),
        ([TINY], "this is a spec, not a space\n  --vary"),
        ([TINY, "--vary", "hedas"], "did you mean heads"),
        (["{small}", "--vary", "heads"], "this is a space, not a spec"),
        (["hw_gpt_s", "--list"], "members are too many to list"),
    ],
)
def test_what_cannot_be_done(small, words, message):
    result = invoke("space", *(small if word == "{small}" else word for word in words), code=2)
    assert message in result.stderr
