"""Candidates priced by looking up against `price` of the decoded candidate."""

from __future__ import annotations

import numpy as np
import pytest

from archspec.errors import SpecError
from archspec.source import parse
from search.cost import price
from search.cost.table import FIGURES, Prices, Table, Vectors
from spaces.encoding import decode, sample_encoded
from spaces.space import Space, library, load

DEVICE = "l4"
HEAD = "archspace: 1\ninterface: {kind: causal_lm, vocab: 48, length: 24}\n"
ATTENTION = "{kind: attention, heads: 2}"
APART = {"hat": 10}  # no chain: candidates are priced one by one, so many here


def drawn(space: Space, count: int, seed: int = 0) -> Vectors:
    return sample_encoded(space, np.random.default_rng(seed), count)


def agree(space: Space, prices: Prices, vectors: Vectors) -> int:
    """How many candidates are not refused; all are priced, or refused, as they are one by one."""
    for number, vector in enumerate(vectors):
        try:
            cost = price(decode(space, vector).spec, device=DEVICE)
        except SpecError:
            assert prices.refused[number]
            continue
        assert not prices.refused[number]
        assert {name: getattr(prices, name)[number] for name in FIGURES} == {
            name: getattr(cost, name) for name in FIGURES
        }
    return int((~prices.refused).sum())


@pytest.mark.parametrize("name", library())
def test_library_spaces_are_looked_up(name: str) -> None:
    space, count = load(name), APART.get(name, 50)
    table, vectors = Table(space, device=DEVICE), drawn(space, count)
    assert agree(space, table.price(vectors), vectors) == count
    assert (table.slow is None) == (name not in APART)


@pytest.mark.slow
@pytest.mark.parametrize("name", library())
def test_a_thousand_candidates(name: str) -> None:
    space, count = load(name), 100 if name in APART else 1000
    table, vectors = Table(space, device=DEVICE), drawn(space, count, seed=1)
    assert agree(space, table.price(vectors), vectors) == count


def space_of(graph: str, dims: str = "{}", blocks: str = "{}") -> Space:
    return Space(parse(f"{HEAD}dims: {dims}\nblocks: {blocks}\ngraph: {graph}\n"))


FACTORED = {
    "choices in blocks and dims": lambda: space_of(
        "[{kind: token_embedding, width: width}, {kind: repeat, times: 2, body: layer}, norm, lm_head]",
        "{width: {choose: [16, 32]}, inner: {choose: [width, 2 * width]}}",
        f"{{norm: {{choose: [rms_norm, layer_norm]}}, feed: {{kind: glu, hidden: inner}}, "
        f"layer: {{kind: transformer_layer, norm: norm, mixer: {ATTENTION}, channel: feed}}}}",
    ),
    "rounds that may be absent": lambda: space_of(
        "[{kind: token_embedding, width: 16}, {kind: repeat, times: {range: [0, 3]}, vary: each, "
        "body: {choose: [{kind: mlp, hidden: {choose: [8, 16]}}, absent]}}, lm_head]"
    ),
    "layers of which half may be absent": lambda: space_of(
        "[{kind: token_embedding, width: 16}, {kind: repeat, times: {range: [1, 3]}, vary: each, body: {kind: "
        f"transformer_layer, norm: {{choose: [rms_norm, layer_norm]}}, mixer: {{choose: [absent, {ATTENTION}]}}, "
        "channel: {kind: mlp, hidden: {choose: [8, 160]}}}}, {kind: repeat, times: {choose: [1, 2]}, body: "
        f"{{kind: transformer_layer, place: post, mixer: {ATTENTION}, channel: {{choose: [absent, rms_norm]}}}}}}, "
        "lm_head]"
    ),
    "layers that may be parallel": lambda: space_of(
        "[{kind: token_embedding, width: 16}, {kind: repeat, times: 2, vary: each, body: {kind: transformer_layer, "
        f"place: {{choose: [pre, parallel]}}, mixer: {{choose: [{ATTENTION}, depthwise_convolution]}}, channel: "
        "{choose: [absent, {kind: mlp, hidden: 8}]}}}, lm_head]"
    ),
    "rounds in a list": lambda: space_of(
        "[{kind: token_embedding, width: 16}, "
        "{kind: repeat, rounds: [{kind: mlp, hidden: {choose: [8, 16]}}, {choose: [absent, rms_norm]}]}, lm_head]"
    ),
    "rounds that know their number": lambda: space_of(
        "[{kind: token_embedding, width: 16}, "
        "{kind: repeat, times: {range: [1, 3]}, body: {kind: mlp, hidden: 8 * (index + 1)}}, lm_head]"
    ),
    "a loop": lambda: space_of(
        "[{kind: token_embedding, width: 16}, {kind: loop, times: {range: [1, 3]}, "
        f"body: {{kind: transformer_layer, mixer: {ATTENTION}}}}}, {{kind: lm_head, tied: {{choose: [true, false]}}}}]"
    ),
    "rounds of rounds": lambda: space_of(
        "[{kind: token_embedding, width: 16}, {kind: repeat, times: {choose: [1, 3, outer]}, body: {kind: repeat, "
        "times: {range: [1, 3]}, vary: each, body: {choose: [{kind: residual, norm: rms_norm, body: {choose: ["
        f"{ATTENTION}, {{kind: mlp, hidden: {{choose: [8, 96]}}}}]}}}}, {{kind: mlp, hidden: 48}}, absent]}}}}}}, "
        "rms_norm, lm_head]",
        "{outer: 2}",
    ),
    "rounds of rounds of rounds": lambda: space_of(
        "[{kind: token_embedding, width: 16}, {kind: repeat, times: {choose: [0, 2]}, body: {kind: repeat, times: "
        "inner, body: {kind: repeat, rounds: [{kind: mlp, hidden: {choose: [8, 160]}}, {kind: residual, body: "
        f"{{choose: [{ATTENTION}, rms_norm]}}}}]}}}}}}, {{kind: lm_head, tied: true}}]",
        "{inner: {choose: [1, 2]}}",
    ),
    "a repeat that is chosen": lambda: space_of(
        "[{kind: token_embedding, width: 16}, "
        "{choose: [absent, {kind: repeat, times: 2, body: {kind: mlp, hidden: {choose: [8, 16]}}}]}, lm_head]"
    ),
    "widths that the language refuses": lambda: space_of(
        "[{kind: token_embedding, width: {choose: [12, 16]}}, "
        "{kind: transformer_layer, mixer: {kind: attention, heads: {choose: [2, 8]}}}, lm_head]"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FACTORED)
def test_spaces_are_taken_apart(name: str) -> None:
    space = FACTORED[name]()
    table, vectors = Table(space, device=DEVICE), drawn(space, 24)
    count = agree(space, table.price(vectors), vectors)
    assert 0 < count <= 24 and (count < 24) == (name == "widths that the language refuses")
    assert table.slow is None


SLOW = {
    "a name": lambda: space_of(
        "[{name: words, kind: token_embedding, width: {choose: [16, 32]}}, "
        "{kind: residual, body: {kind: attention, heads: 2, memory: words}}, lm_head]"
    ),
    "a number that depends on depth": lambda: space_of(
        "[{kind: token_embedding, width: 16}, {kind: repeat, times: {range: [1, 3]}, "
        "body: {kind: transformer_layer, channel: {kind: mlp, ratio: 2}, drop_path: 0.2 * depth}}, lm_head]"
    ),
    "a continuum": lambda: space_of(
        "[{kind: token_embedding, width: 16}, {kind: mlp, hidden: 8, dropout: {range: [0.1, 0.3]}}, lm_head]"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SLOW)
def test_other_spaces_are_priced_one_by_one(name: str) -> None:
    space = SLOW[name]()
    table, vectors = Table(space, device=DEVICE), drawn(space, 10)
    assert agree(space, table.price(vectors), vectors) == 10
    assert table.slow


def test_an_entry_that_cannot_be_chosen() -> None:
    space = FACTORED["a loop"]()
    vectors = drawn(space, 3)
    vectors[1, 0] = 9
    with pytest.raises(SpecError, match="cannot be chosen"):
        Table(space, device=DEVICE).price(vectors)
