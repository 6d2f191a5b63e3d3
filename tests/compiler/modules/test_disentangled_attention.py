"""Disentangled attention against the released one."""

from typing import Any

import pytest
import torch

from archspec.errors import SpecError
from compiler.logical import logical
from tests.compiler.modules.bodies import assert_close, body
from tests.models import perturbed

TERMS = {"c2p": "content_to_position", "p2c": "position_to_content"}
NAMES = {
    "query_proj": "query", "key_proj": "key", "value_proj": "value", "pos_key_proj": "position_key",
    "pos_query_proj": "position_query",
}  # fmt: skip


@pytest.mark.parametrize("terms", [["c2p", "p2c"], ["c2p"], ["p2c"]])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("reach", "longest"), [(8, 40), (4, 64), (5, None), (64, None)])
@torch.no_grad()
def test_disentangled_attention_is_that_of_transformers(
    terms: list[str], shared: bool, reach: int, longest: int | None
) -> None:
    theirs: Any = pytest.importorskip("transformers.models.deberta_v2.modeling_deberta_v2")
    config = theirs.DebertaV2Config(
        hidden_size=16, num_attention_heads=2, relative_attention=True, pos_att_type=terms, share_att_key=shared,
        position_buckets=reach if longest else -1, max_relative_positions=longest or reach,
    )  # fmt: skip
    attention = perturbed(theirs.DisentangledSelfAttention(config)).eval()
    fields = f"heads: 2, positions: far, shared: {str(shared).lower()}, longest: {longest or 'null'}"
    ours = body(
        f"[{{name: far, kind: learned_distances, reach: {reach}, width: 16}}, {{name: a, from: x, "
        f"kind: disentangled_attention, {fields}, terms: [{', '.join(TERMS[t] for t in terms)}], "
        "linears: {out: no_matrix}}]",
        interface="padding: true",
    )
    views = logical(ours)
    for name, value in attention.state_dict().items():
        module, _, kind = name.rpartition(".")
        views[f"a.{NAMES[module]}.{kind}"].copy_(value)
    x, valid = torch.randn(3, 40, 16), torch.arange(40) < torch.tensor([[40], [23], [1]])
    mask = (valid[:, None] & valid[:, :, None])[:, None]
    expected = attention(x, mask, rel_embeddings=views["far.weight"])[0]
    assert_close(ours(x, valid)[valid], expected[valid])


@torch.no_grad()
def test_places_of_their_own_give_the_distances() -> None:
    graph = """[{name: far, kind: learned_distances, reach: 6, width: 16}, {from: x, kind: route,
      take: {kind: expert_choice, capacity: 1}, body: {kind: disentangled_attention, heads: 2, positions: far}}]"""
    attend = body(graph).get_submodule("route.body.attend")
    q, k, v, key, query = (torch.randn(1, 2, rows, 8) for rows in (5, 5, 5, 12, 12))
    here = torch.arange(5)[None]
    found = [attend(q, k, v, key, query, place, None, None) for place in (None, here, here + 7, 2 * here)]
    assert_close(found[1], found[0])
    assert_close(found[2], found[0])
    assert not torch.allclose(found[3], found[0], atol=1e-3)


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ("positions: x", "no stream of distances"),
        ("positions: far, heads: 3", "3 heads"),
        ("positions: far, shared: true", "distances of width 16"),
        ("positions: far, longest: 3", "does not bend"),
    ],
)
def test_refusals(fields: str, cause: str) -> None:
    fields = fields if "heads" in fields else f"{fields}, heads: 2"
    far = "{name: far, kind: learned_distances, reach: 4, width: 8}"
    with pytest.raises(SpecError, match=cause):
        body(f"[{far}, {{from: x, kind: disentangled_attention, {fields}}}]")
