"""Children are members, reach everything, and inherit."""

from random import Random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from spaces.encoding import decode, encode, encode_all, sample_encoded
from spaces.identity import identity
from spaces.space import library, load
from spaces.variation import Variation
from tests.spaces.test_random_spaces import loaded, most, quick, spaces

NASTY = {
    "dims that decide what is legal": (
        "dims: {w: {choose: [4, 6, 9]}, d: {range: [0, 3]}}\n"
        "graph: [{kind: repeat, vary: each, times: d, body: {kind: k, a: {range: [1, 4]}, where: w % a == 0}}]"
    ),
    "rounds in rounds": (
        "graph: [{kind: repeat, vary: each, times: {range: [0, 2]}, body:"
        " {kind: repeat, vary: each, times: {choose: [0, 2]}, body: {choose: [x, y]}}}]"
    ),
    "an option with choices among tied parts": (
        "graph: [{kind: k, a: {choose: [1, {range: [2, 3]}, {choose: [5, 6]}]}, b: {range: [1, 3]}, where: a >= b}]"
    ),
    "rounds tied to a field": (
        "graph: [{kind: repeat, vary: each, times: {range: [1, 3]}, n: {range: [1, 3]}, where: n >= times,"
        " body: {choose: [x, {kind: k, a: {choose: [1, 2]}}]}}]"
    ),
    "ranges of all sorts": (
        "graph: [{kind: k, a: {range: [0.5, 2], step: 0.5}, b: {range: [1, 9], log: true}, c: {range: [3, 3]}}]"
    ),
}


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY.keys())
@pytest.mark.parametrize("rate", [None, 0.7])
def test_mutation_reaches_every_member(space, text, rate):
    found = space(text)
    members = {identity(member.tree) for member in found.members()}
    generator, variation = np.random.default_rng(0), Variation(found)
    vectors = np.repeat(encode(found.draw(Random(0)))[None], 400, axis=0)
    met = set()
    for _ in range(20):
        vectors = variation.mutate(generator, vectors, rate)
        met |= {identity(decode(found, vector).tree) for vector in vectors}
    assert met == members


TIED = "graph: [{kind: k, a: {range: [1, 5000]}, b: {range: [1, 5000]}, c: {choose: [x, y]}, where: a > b}]"
UNTABULATED = {
    "a continuum": "graph: [{kind: k, a: {range: [0.1, 0.9]}, b: {range: [0.1, 0.9], log: true}, where: a > b}]",
    "tied parts": TIED,
    "dims": (
        "dims: {v: {range: [2, 900]}, w: {range: [2, 900]}}\n"
        "graph: [{kind: k, a: {range: [1, 40]}, where: (v + w) % a == 0}, {kind: k, a: {range: [1, 9]}, where: a < v}]"
    ),
    "dims of a continuum": (
        "dims: {v: {range: [0.5, 2.5]}}\ngraph: [{kind: k, a: {choose: [1, 2, 3]}, where: a > v}, {choose: [x, y]}]"
    ),
    "rounds": (
        "graph: [{kind: repeat, vary: each, times: {range: [1, 4]}, n: {range: [0.1, 0.9]}, where: times * n < 2,"
        f" body: {TIED[8:-1]}}}]"
    ),
}


@pytest.mark.parametrize("text", UNTABULATED.values(), ids=UNTABULATED.keys())
def test_what_cannot_be_tabulated_is_varied_one_by_one(space, text):
    found, generator = space(text), np.random.default_rng(0)
    vectors, others = sample_encoded(found, generator, 100), sample_encoded(found, generator, 100)
    variation = Variation(found)
    changed = variation.mutate(generator, vectors)
    crossed = variation.cross(generator, vectors, others)
    for vector in (*changed, *crossed):
        decode(found, vector)
    assert not any(np.array_equal(a, b, equal_nan=True) for a, b in zip(changed, vectors, strict=True))
    assert np.array_equal(variation.cross(generator, vectors, vectors), vectors, equal_nan=True)
    again = variation.mutate(np.random.default_rng(7), vectors)
    assert np.array_equal(again, variation.mutate(np.random.default_rng(7), vectors), equal_nan=True)


@quick
@given(spaces, st.integers(0, 2**32), st.sampled_from([None, 0.05, 0.5, 1.0]))
def test_children_are_members(raw, seed, rate):
    found, expected = loaded(raw)
    generator, variation = np.random.default_rng(seed), Variation(found)
    a, b = sample_encoded(found, generator, 40), sample_encoded(found, generator, 40)
    for vector in (*variation.mutate(generator, a, rate), *variation.cross(generator, a, b)):
        candidate = decode(found, vector)
        assert identity(candidate.tree) in expected
        assert np.array_equal(encode(candidate), vector, equal_nan=True)
    assert np.array_equal(variation.cross(generator, a, a), a, equal_nan=True)
    assert np.array_equal(variation.mutate(generator, a, 0), a, equal_nan=True)


@settings(quick, max_examples=30)
@given(spaces)
def test_every_member_of_a_random_space_is_reached(raw):
    assume(most(raw) < 40)
    found, expected = loaded(raw)
    generator, variation = np.random.default_rng(0), Variation(found)
    vectors, met = np.repeat(encode(found.draw(Random(0)))[None], 100, axis=0), set()
    for _ in range(30):
        vectors = variation.mutate(generator, vectors, 0.3)
        met |= {identity(decode(found, vector).tree) for vector in vectors}
    assert met == expected


@pytest.mark.parametrize("name", library())
def test_children_in_the_library(name):
    found, generator = load(name), np.random.default_rng(0)
    a, b = sample_encoded(found, generator, 2000), sample_encoded(found, generator, 2000)
    variation = Variation(found)
    changed, crossed = variation.mutate(generator, a), variation.cross(generator, a, b)
    for vector in (*changed[:200], *crossed[:200]):
        decode(found, vector)
    assert np.array_equal(variation.cross(generator, a, a), a, equal_nan=True)
    # Two members of a large space are alike in few choices; a mutant and its parent in most.
    if len(found.slots) > 2:
        assert _differ(changed, a).mean() < _differ(b, a).mean() / 2
    # What both parents chose at a place, or one of them, is what the child has nearly everywhere.
    inherited = _same(crossed, a) | _same(crossed, b)
    assert inherited.mean() > 0.95


def test_a_near_number_comes_more_often_than_a_far_one(space):
    found = space("graph: [{kind: k, a: {range: [0, 100]}, b: {choose: [1, 16, 2, 8, 4]}}]")
    parent = encode_all([found.candidate({"graph[0].a": 50, "graph[0].b": 4})])
    children = Variation(found).mutate(np.random.default_rng(0), np.repeat(parent, 20_000, axis=0), 0.5)
    steps = np.abs(children[:, 0] - 50)
    counts = np.bincount(steps[steps > 0].astype(int))
    assert counts[1] > 2 * counts[3] > 2 * counts[12]
    assert set(children[:, 0]) == set(range(101))
    places = np.array([1, 16, 2, 8, 4])[children[:, 1].astype(int)]
    assert (places == 8).sum() > 1.3 * (places == 16).sum() > 0


def test_only_what_lies_below_a_changed_option_is_redrawn(space):
    found = space(
        "graph: [{choose: [{kind: k, a: {range: [1, 1000]}}, {kind: m, b: {range: [1, 1000]}}]},"
        " {kind: k, c: {range: [1, 1000]}}]"
    )
    parents = sample_encoded(found, np.random.default_rng(0), 5000)
    children = Variation(found).mutate(np.random.default_rng(1), parents, 0.1)
    option = children[:, 0] != parents[:, 0]
    assert option.mean() == pytest.approx(0.1 / (1 - 0.9**3), abs=0.03)  # given that one of three changed
    assert (children[:, 3] != parents[:, 3]).mean() == pytest.approx(0.1 / (1 - 0.9**3), abs=0.03)
    kept = np.where(parents[:, 0] == 0, children[:, 1] == parents[:, 1], children[:, 2] == parents[:, 2])
    assert kept[~option].mean() > 0.4


def test_rounds_are_removed_added_moved_and_swapped(space):
    found = space("graph: [{kind: repeat, vary: each, times: {range: [3, 5]}, body: {kind: k, a: {range: [1, 99]}}}]")
    parent = found.candidate({"graph[0].times": 4, **{f"graph[0].body[{n}].a": 10 * n + 10 for n in range(4)}})
    children = Variation(found).mutate(np.random.default_rng(0), np.repeat(encode(parent)[None], 3000, axis=0))
    met = {tuple(int(a) for a in child[1:] if a == a) for child in children}
    assert {(10, 20, 30), (20, 30, 40), (10, 30, 40)} <= met  # any is removed
    assert {(10, 20, 20, 30, 40), (10, 10, 20, 30, 40)} <= met  # copied
    assert {(20, 30, 40, 10), (10, 30, 20, 40), (40, 10, 20, 30)} <= met  # moved
    assert (40, 20, 30, 10) in met  # swapped


def test_crossover_takes_stretches_of_rounds_and_the_whole_option(space):
    found = space("graph: [{kind: repeat, vary: each, times: 6, body: {kind: k, a: {range: [1, 99]}}}]")
    ones, twos = (np.full((2000, 6), number, dtype=float) for number in (1, 2))
    children = Variation(found).cross(np.random.default_rng(0), ones, twos)
    assert set(np.unique(children)) == {1, 2}
    changes = (np.diff(children, axis=1) != 0).sum(axis=1)
    assert (changes <= 2).mean() > 0.7  # six coins: 0.5
    assert abs((children == 1).mean() - 0.5) < 0.05


def _same(a, b):
    return (a == b) | (np.isnan(a) & np.isnan(b))


def _differ(a, b):
    return (~_same(a, b)).sum(axis=1)
