"""No way around causality: what would read later tokens is masked or refused, however it is written."""

from __future__ import annotations

import pytest
import torch

from archspec.errors import SpecError
from archspec.source import parse
from archspec.spec import loads
from compiler.model import compile
from tests.models import inputs, perturbed, runs
from tests.specs import whole

ROUTES = """
another stream of the same axis is the memory:
  causal:
    - {name: far, kind: mlp, ratio: 1}
    - {from: token_embedding, kind: residual, body: {kind: attention, heads: 2, memory: far}}
the memory is outside of a partition:
  causal:
    - {name: far, kind: mlp, ratio: 1}
    - {from: token_embedding, kind: partition, scheme: {kind: chunks, size: 4}, body: read}
  blocks: {read: {kind: attention, heads: 2, memory: far}}
the memory is outside of a route:
  causal:
    - {name: far, kind: mlp, ratio: 1}
    - {kind: route, take: {kind: label_selector, label: speaker, values: [1]}, body: read}
  blocks: {read: {kind: attention, heads: 2, memory: far}}
  interface: {labels: {speaker: 2}}
all tokens are pooled and added:
  causal: [{name: all, kind: pool}, {from: [token_embedding, all], kind: combine}]
all tokens are pooled over their axis and added:
  causal: [{name: all, kind: pool, over: [token]}, {from: [token_embedding, all], kind: combine}]
chunks are pooled and are the memory:
  causal:
    - {name: chunks_, kind: partition, scheme: {kind: chunks, size: 4}, body: pool}
    - {from: token_embedding, kind: residual, body: {kind: attention, heads: 2, memory: chunks_}}
all rounds are attended to and pooled:
  causal:
    - {name: r, kind: repeat, times: 2, body: {kind: mlp, ratio: 1}}
    - {from: r.each, kind: attention, heads: 2}
    - {kind: pool, over: [round]}
the causal axis is not the first:
  causal:
    - {name: r, kind: repeat, times: 2, body: layer}
    - {from: r.each, kind: residual, body: {kind: attention, heads: 2, position: rope}}
    - {kind: pool, over: [round]}
causality ends in the middle:
  causal: [whole, layer]
strided groups:
  causal: [{kind: partition, scheme: {kind: strided, size: 4}, body: layer}]
the memory is a body of the tokens:
  causal: [{kind: residual, body: {kind: attention, heads: 2, memory: {kind: mlp, ratio: 1}}}]
learned tokens before the others:
  causal:
    - {name: q, kind: learned_queries, count: 3, width: 16}
    - {name: j, from: [q, token_embedding], kind: join}
    - {name: k, kind: residual, body: {kind: attention, heads: 2}}
    - {name: l, kind: residual, body: {kind: attention, heads: 2}}
    - {from: l.tokens, kind: identity}
learned tokens after the others:
  causal:
    - {name: q, kind: learned_queries, count: 3, width: 16}
    - {name: j, from: [token_embedding, q], kind: join}
    - {name: k, kind: residual, body: {kind: attention, heads: 2}}
    - {name: l, kind: residual, body: {kind: attention, heads: 2}}
    - {from: l.tokens, kind: identity}
"""
CASES = parse(ROUTES)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_later_tokens_are_not_read(name: str) -> None:
    try:
        spec = loads(whole(CASES[name]))
    except SpecError:
        return
    model, given = perturbed(compile(spec)).eval(), inputs(spec, batch=2, length=16)
    (before,) = runs(model, given).values()
    for at in range(1, 16):
        changed = given[0].clone()
        changed[:, at] = (changed[:, at] + 1) % 32
        (after,) = runs(model, [changed, *given[1:]]).values()
        assert torch.allclose(before[:, :at], after[:, :at], atol=1e-5)
        assert not torch.allclose(before[:, at], after[:, at], atol=1e-5)
