"""Trees priced piece by piece against `price`, figure by figure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from archspec.errors import SpecError
from archspec.resolve import resolve
from archspec.source import Map, parse
from archspec.spec import from_tree, loads
from search.cost import Cost, price
from search.cost.chain import chain_of, price_trees
from spaces.space import library, load
from tests.search.cost.small import EMBED, LM, PLAIN, SPECS, layer, spec

EXAMPLES = Path(__file__).parents[3] / "examples"
DEVICE = "l4"
CHAINS = set(SPECS) - {
    "dropout",  # reads depth
    "skips between far nodes",
    "shared node",
    "encoder and decoder",
    "streams that exchange, one unread at the end",
    "a branch of training",
}


def whole(tree: Map, **setting: Any) -> Cost:
    return replace(price(from_tree(tree), device=DEVICE, **setting), rows=())


def in_pieces(tree: Map) -> bool:
    """Whether a tree is priced as a chain."""
    chain = chain_of(1, None, "float32", DEVICE)
    return chain._total(tree, repr) is not None


@pytest.mark.parametrize("name", SPECS)
def test_pieces_add_up_to_the_price(name: str) -> None:
    tree = SPECS[name]().tree
    assert price_trees([tree], device=DEVICE) == [whole(tree)]
    assert in_pieces(tree) == (name in CHAINS)


@pytest.mark.parametrize(
    "file", ["tiny.yaml", "zoo/language/gpt2.yaml", "zoo/swin_t.yaml", "zoo/mixture_of_transformers.yaml"]
)
def test_examples_in_pieces(file: str) -> None:
    tree = resolve(parse((EXAMPLES / file).read_text(), file))
    setting: dict[str, Any] = {"batch": 2, "dtype": "bfloat16"}
    assert price_trees([tree], device=DEVICE, **setting) == [whole(tree, **setting)]


@pytest.mark.parametrize("name", library())
def test_candidates_of_the_library(name: str) -> None:
    space, random = load(name), Random(1)
    trees = [space.sample(random).tree for _ in range(15)]
    assert price_trees(trees, device=DEVICE) == [whole(tree) for tree in trees]
    assert all(map(in_pieces, trees)) == (name != "hat")  # its decoder reads an encoder


def test_what_a_piece_names_is_part_of_it() -> None:
    """Equal nodes under other dims, blocks, defaults and interfaces are other pieces."""
    text = """
archspec: 1
interface: {{kind: causal_lm, vocab: {vocab}, length: 24}}
dims: {{width: {width}, inner: {inner}}}
defaults: {defaults}
blocks: {{feed: {{kind: glu, hidden: inner}}, layer: {{kind: transformer_layer, mixer: {mixer}, channel: feed}}}}
graph: [{{kind: token_embedding, width: width}}, {{kind: repeat, times: 2, body: layer}}, lm_head]
"""
    plain = {"vocab": 48, "width": 32, "inner": "2 * width", "defaults": "{}", "mixer": PLAIN}
    changes: list[dict[str, object]] = [
        {}, {"vocab": 50}, {"width": 16}, {"inner": "3 * width"}, {"defaults": "{linear: {kind: low_rank, rank: 2}}"},
        {"mixer": "{kind: attention, heads: 4, kv_heads: 1}"}, {"mixer": "depthwise_convolution"},
    ]  # fmt: skip
    trees = [loads(text.format(**{**plain, **change})).tree for change in changes]
    costs = price_trees(trees, device=DEVICE)
    assert costs == [whole(tree) for tree in trees]
    assert len({cost.parameters for cost in costs if isinstance(cost, Cost)}) == len(trees)
    assert all(map(in_pieces, trees))


def test_a_refused_tree_gets_its_error() -> None:
    good = spec(LM, EMBED, layer(PLAIN), "lm_head").tree
    bad = parse(f"archspec: 1\ninterface: {LM}\ngraph: [lm_head]\n")
    first, second = price_trees([good, bad], device=DEVICE)
    assert isinstance(first, Cost)
    with pytest.raises(SpecError) as told:
        from_tree(bad)
    assert isinstance(second, SpecError) and str(second) == str(told.value)


def test_a_stream_with_a_name_is_no_chain() -> None:
    tree = spec(
        LM, f"{{name: words, {EMBED[1:]}", layer("{kind: attention, heads: 4, memory: words}"), "lm_head"
    ).tree  # fmt: skip
    assert not in_pieces(tree)
    assert price_trees([tree], device=DEVICE) == [whole(tree)]


READER = """
archspec: 1
interface: {{kind: seq2seq_lm, vocab: 48, length: 12, source_length: 20}}
blocks: {{layer: {layer}}}
graph:
  - {{name: read, from: source, kind: token_embedding, width: {width}}}
  - {{name: {memory}, kind: repeat, times: {times}, body: {{kind: residual, body: layer}}}}
  - {{name: wrote, from: target, kind: token_embedding, width: 32}}
  - kind: repeat
    times: 2
    body: {{kind: residual, body: {{kind: attention, heads: 4, memory: {reads}}}}}
  - lm_head
"""


def test_rounds_that_several_trees_have_are_priced_where_they_stand() -> None:
    plain = {"layer": PLAIN, "width": 32, "memory": "memory", "times": 2, "reads": "memory"}
    changes: list[dict[str, object]] = [
        {}, {"width": 16}, {"times": 3}, {"layer": "{kind: glu, hidden: 8}"}, {"reads": "memory.0"},
        {"times": 1, "reads": "memory.0"}, {"memory": "other", "reads": "other"}, {"reads": "read"},
        {"layer": "{kind: mlp, hidden: 16 * (index + 1)}"},
    ]  # fmt: skip
    trees = [loads(READER.format(**{**plain, **change})).tree for change in changes]
    assert price_trees(trees * 2, device=DEVICE) == [whole(tree) for tree in trees] * 2
    refused, _ = price_trees([parse(READER.format(**{**plain, "reads": "memory.2"})), trees[2]], device=DEVICE)
    assert isinstance(refused, SpecError)


def test_trees_may_be_changed_between_calls() -> None:
    tree = loads(READER.format(layer=PLAIN, width=32, memory="memory", times=2, reads="memory")).tree
    (before,) = price_trees([tree], device=DEVICE)
    tree["graph"][3]["body"]["body"]["heads"] = 2
    tree["graph"][1]["body"]["body"] = "rms_norm"
    (after,) = price_trees([tree], device=DEVICE)
    assert after == whole(tree) != before


def test_a_name_that_is_bound_twice_is_refused() -> None:
    tree = parse(
        f"archspec: 1\ninterface: {LM}\ngraph: [{{name: a, {EMBED[1:]}, {{name: a, kind: mlp, hidden: 8}}, lm_head]"
    )
    (found,) = price_trees([tree], device=DEVICE)
    assert isinstance(found, SpecError) and "bound twice" in str(found)


def test_rounds_that_know_their_number_stay_together() -> None:
    body = layer(PLAIN, "{kind: glu, hidden: 16 * (index + 1)}")
    tree = spec(LM, EMBED, f"{{kind: repeat, times: 3, body: {body}}}", "lm_head").tree
    assert in_pieces(tree)
    assert price_trees([tree], device=DEVICE) == [whole(tree)]
