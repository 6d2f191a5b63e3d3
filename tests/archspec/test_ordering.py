"""Nodes are computed after what they read, wherever that stands, and otherwise in the order of the file."""

from archspec.spec import loads

HEAD = """
archspec: 1
name: small
interface: {kind: seq2seq_lm, vocab: 32, length: 8}
"""


def order(text: str) -> list[str]:
    return [node.name for node in loads(HEAD + text).graph.nodes]


def test_a_stream_that_a_block_reads_comes_before_the_nodes_that_use_the_block() -> None:
    found = order("""
blocks:
  cross: {kind: residual, norm: layer_norm, body: {kind: attention, heads: 2, memory: memory}}
  layer: [cross, {kind: residual, body: {kind: mlp, ratio: 2}}]
graph:
  - {name: words, from: target, kind: token_embedding, width: 16}
  - {name: layers, kind: repeat, times: 2, body: layer}
  - {name: head, kind: lm_head}
  - {name: memory, from: source, weights: words}
outputs: head
""")
    assert found == ["words", "memory", "layers", "head"]


def test_nodes_move_no_further_than_they_must() -> None:
    found = order("""
graph:
  - {name: bias, from: words, kind: position_bias, heads: 2}
  - {name: words, from: source, kind: token_embedding, width: 16}
  - {name: encoded, kind: sequence, body: [{name: norm, kind: layer_norm}]}
  - {name: prefix, from: target, weights: words}
  - {name: norm, kind: layer_norm}
  - {kind: residual, body: {kind: attention, heads: 2, memory: encoded}}
  - lm_head
""")
    assert found == ["words", "bias", "encoded", "prefix", "norm", "residual", "lm_head"]
