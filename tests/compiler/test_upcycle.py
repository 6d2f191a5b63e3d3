"""Experts that begin as copies of one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import compiler
from archspec.errors import SpecError
from archspec.spec import Spec, loads
from compiler.logical import logical
from tests.models import inputs, perturbed

HEAD = """archspec: 1
interface: {kind: causal_lm, vocab: 32, length: 16}
graph:
  - {kind: token_embedding, width: 16}
  - {kind: repeat, times: 2, body: {kind: transformer_layer, mixer: {kind: attention, heads: 2}, channel: %s}}
  - lm_head
"""  # fmt: skip
ROUTER = "router: {kind: top_k, k: %d, normalize: true}"


def one(body: str) -> Spec:
    return loads(HEAD % body)


def many(body: str, k: int = 4, shape: str = "{count: 4, body: %s}") -> Spec:
    return loads(HEAD % f"{{kind: mixture, experts: {shape % body}, {ROUTER % k}}}")


@pytest.mark.parametrize("body", [
    "{kind: glu, hidden: 24}",
    "{kind: mlp, ratio: 2, bias: true}",
    "{kind: mlp, ratio: 2, linear: {kind: low_rank, rank: 4}}",
])  # fmt: skip
def test_copies_say_together_what_the_one_said(body: str) -> None:
    dense: Any = perturbed(compiler.compile(one(body))).eval()
    given = inputs(dense.spec, batch=2, length=8)
    for k in (1, 2, 4):
        sparse: Any = compiler.upcycle(dense, many(body, k))
        assert not sparse.training
        torch.testing.assert_close(sparse(*given), dense(*given), atol=1e-5, rtol=1e-5)
    single = compiler.upcycle(dense, many(body, 1, "{count: 1, body: %s}"))
    again: Any = compiler.upcycle(single, many(body, 2))
    torch.testing.assert_close(again(*given), dense(*given), atol=1e-5, rtol=1e-5)


def test_what_is_masked_differs_between_experts_and_the_rest_is_kept() -> None:
    body = "{kind: mlp, hidden: 256, bias: true}"
    dense = perturbed(compiler.compile(one(body)))
    sparse = compiler.upcycle(dense, many(body), masked=0.25, seed=3)
    source, found = logical(dense), logical(sparse)
    masks = []
    for expert in range(4):
        weight, whole = (
            words[f"repeat.1.channel.body.{name}up.weight"]
            for words, name in ((found, f"experts.{expert}."), (source, ""))
        )
        masks.append(weight == 0)
        assert torch.equal(weight[~masks[-1]], whole[~masks[-1]]) and 0.22 < masks[-1].float().mean() < 0.28
        name = f"repeat.1.channel.body.experts.{expert}.up.bias"
        assert torch.equal(found[name], source["repeat.1.channel.body.up.bias"])
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == 4
    kept = "repeat.1.mixer.body.query.weight"
    assert torch.equal(found[kept], source[kept])
    again = compiler.upcycle(dense, many(body), masked=0.25, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(sparse.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(("body", "other", "cause"), [
    ("{kind: glu, hidden: 24}", "{kind: glu, hidden: 16}", "the model has no weights for repeat.0.channel.body.exp"),
    ("{kind: glu, hidden: 24, bias: true}", "{kind: glu, hidden: 24}", "the spec has no place for repeat.0.channel"),
])  # fmt: skip
def test_a_spec_of_another_model_is_refused(body: str, other: str, cause: str) -> None:
    with pytest.raises(SpecError, match=cause):
        compiler.upcycle(compiler.compile(one(body)), many(other))
