from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.distance import Distance
from spaces.encoding import encode, encode_all
from spaces.identity import identity
from spaces.neighbours import neighbours
from spaces.space import library, load
from tests.spaces.test_random_spaces import loaded, quick, spaces


def test_neighbours_differ_in_one_value(space):
    found = space("graph: [{kind: k, a: {range: [1, 4]}, b: {choose: [x, y, z]}, c: {range: [1, 2]}}]")
    members = list(found.members())
    assert len(members) == 24
    for member in members:
        near = {other.codes for other in neighbours(member)}
        apart = {o.codes for o in members if sum(a != b for a, b in zip(o.codes, member.codes, strict=True)) == 1}
        assert near == apart


def test_constraints_hold_and_what_is_laid_open_is_default_or_legal(space):
    found = space(
        "dims: {w: {choose: [4, 6]}}\n"
        "graph: [{choose: [x, {kind: k, h: {choose: [4, 2, 3]}, n: {range: [1, 9], default: 5}, where: w % h == 0}]}]"
    )
    start = found.candidate({"dims.w": 4, "graph[0]": "x"})
    assert [one.values for one in neighbours(start)] == [
        {"dims.w": 6, "graph[0]": "x"},
        {"dims.w": 4, "graph[0]": "k", "graph[0].k.h": 4, "graph[0].k.n": 5},
    ]
    other = found.candidate({"dims.w": 6, "graph[0]": "x"})
    assert list(neighbours(other))[1].values["graph[0].k.h"] == 2  # 6 % 4 is not 0
    tied = found.candidate({"dims.w": 4, "graph[0]": "k", "graph[0].k.h": 4, "graph[0].k.n": 1})
    assert not any(one.values["dims.w"] == 6 for one in neighbours(tied))
    assert {one.values["graph[0].k.n"] for one in neighbours(tied, reach=2) if "graph[0].k.n" in one.values} == {
        1,
        2,
        3,
    }


def test_numbers_of_a_continuum(space):
    found = space("graph: [{kind: k, a: {range: [0.1, 0.9]}, b: {range: [0.01, 1.0], log: true}}]")
    values = [one.values for one in neighbours(found.default())]
    assert sorted({round(one["graph[0].a"], 6) for one in values}) == pytest.approx([0.1 + 0.08 * n for n in range(11)])
    assert sorted({one["graph[0].b"] for one in values})[5] == pytest.approx(0.1)


@quick
@given(spaces, st.integers(0, 2**32))
def test_neighbours_are_members(raw, seed):
    found, expected = loaded(raw)
    start = found.draw(Random(seed))
    near = list(neighbours(start))
    assert len({one.codes for one in near}) == len(near)
    for one in near:
        assert identity(one.tree) in expected
        assert identity(one.tree) != identity(start.tree)
        # One decision: every other slot that both reach is alike, but for rounds whose number follows another.
        assert sum(a != b for a, b in zip(one.codes, start.codes, strict=True) if None not in (a, b)) == 1


def test_distance_counts_decisions(space):
    found = space(
        "graph: [{choose: [x, {kind: k, a: {range: [1, 9]}, b: {range: [1, 9]}}]}, {kind: m, c: {range: [1, 9]}},"
        " {kind: repeat, vary: each, times: {range: [1, 3]}, body: {kind: k, a: {range: [1, 9]}, b: {range: [1, 9]}}}]"
    )

    def member(**changes):
        values = {"graph[0]": "k", "graph[0].k.a": 1, "graph[0].k.b": 1, "graph[1].c": 1, "graph[2].times": 1}
        values |= {"graph[2].body[0].a": 1, "graph[2].body[0].b": 1}
        return found.candidate({**values, **{path.replace("__", "."): value for path, value in changes.items()}})

    distance, one = Distance(found), member()
    assert distance.between(one, one) == 0
    assert distance.between(one, member(**{"graph[1].c": 9})) == 1
    assert distance.between(one, member(**{"graph[0].k.a": 9})) == 0.5
    assert distance.between(one, found.candidate({
        key: value for key, value in {**one.values, "graph[0]": "x"}.items() if ".k." not in key
    })) == 1  # fmt: skip
    assert distance.between(one, member(**{"graph[2].body[0].b": 2})) == 1
    assert distance.between(one, member(**{"graph[2].times": 2, "graph[2].body[1].a": 1, "graph[2].body[1].b": 1})) == 3


def is_metric(found, vectors):
    distance = Distance(found)
    apart = distance.pairs(vectors, vectors)
    same = ((vectors[:, None] == vectors[None]) | (np.isnan(vectors[:, None]) & np.isnan(vectors[None]))).all(-1)
    assert np.array_equal(apart == 0, same)
    assert np.array_equal(apart, apart.T)
    assert (apart[:, :, None] + apart[None] >= apart[:, None] - 1e-9).all()
    assert apart.max() <= distance.greatest + 1e-9


@quick
@given(spaces, st.integers(0, 2**32))
def test_distance_is_a_metric(raw, seed):
    found, _ = loaded(raw)
    random = Random(seed)
    is_metric(found, encode_all([found.draw(random) for _ in range(25)]))


@pytest.mark.parametrize("name", library())
def test_in_the_library(name):
    found, random = load(name), Random(0)
    is_metric(found, encode_all([found.draw(random) for _ in range(40)]))
    start = found.default()
    near = list(neighbours(start, reach=1))
    assert len(near) > 5
    apart = Distance(found).pairs(encode(start)[None], encode_all(near))[0]
    rounds = [one for one, far in zip(near, apart, strict=True) if far > 1]
    assert all("times" in _change(one, start) or "layers" in _change(one, start) for one in rounds)


def _change(one, start):
    return next(path for path, value in start.values.items() if one.values.get(path) != value)
