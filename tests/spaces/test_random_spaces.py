"""Random spaces against a second reading of the language, written plainly: every member listed by recursion."""

import itertools
import json
import math
from random import Random

import numpy as np
from hypothesis import HealthCheck, assume, given, reject, settings
from hypothesis import strategies as st

from archspec.errors import SpecError
from archspec.source import parse
from spaces.encoding import decode, encode, encode_all, sample_encoded
from spaces.identity import identity
from spaces.space import Space

MOST = 1500  # members of a space that the second reading lists

numbers = st.integers(1, 6)
ranges = st.builds(
    lambda low, more, step, of: {"range": [low, low + more * step], "step": step} | ({"of": of} if of else {}),
    st.integers(1, 3), st.integers(0, 3), st.sampled_from([1, 2, 0.5]), st.sampled_from([None, None, "w"]),
)  # fmt: skip


def unlike(options):
    return len({identity(option) for option in options}) == len(options)


def chosen(options):
    return st.lists(options, min_size=1, max_size=3).filter(unlike).map(lambda listed: {"choose": listed})


number_choices = st.one_of(numbers, ranges, chosen(numbers), chosen(st.one_of(numbers, ranges)), st.just("w + 1"))
WHERES = ["a <= b", "w % a == 0", "a + b > w", "b != 3", "a * 2 >= b + 1"]


def varies(raw):
    if isinstance(raw, dict):
        return "choose" in raw or "range" in raw or any(map(varies, raw.values()))
    return isinstance(raw, list) and any(map(varies, raw))


def node(values):
    plain = st.fixed_dictionaries(
        {"kind": st.sampled_from(["p", "q"]), "a": number_choices, "b": number_choices},
        optional={"c": values, "where": st.sampled_from(WHERES)},
    )
    repeat = st.fixed_dictionaries(
        {
            "kind": st.just("repeat"),
            "vary": st.just("each"),
            "times": st.one_of(
                st.integers(1, 3), st.just("w - 1"), st.just({"range": [0, 2]}), st.just({"choose": [3, "w"]})
            ),
            "body": values.filter(varies),
        }
    )
    items = st.lists(st.one_of(values, chosen(st.one_of(values, st.just("absent")))), min_size=1, max_size=3)
    return st.one_of(plain, repeat, items, chosen(values))


leaves = st.one_of(st.sampled_from(["x", "y"]), number_choices, chosen(st.sampled_from(["x", "y", "z"])))
trees = st.recursive(leaves, node, max_leaves=7)
spaces = st.fixed_dictionaries(
    {
        "archspace": st.just(1),
        "dims": st.fixed_dictionaries({"w": st.one_of(st.integers(2, 4), chosen(st.integers(2, 4)))}),
        "graph": st.lists(trees, min_size=1, max_size=3),
    }
)


def most(raw):
    """At least the number of members."""
    if isinstance(raw, dict):
        if "choose" in raw:
            return sum(map(most, raw["choose"]))
        if "range" in raw:
            return round((raw["range"][1] - raw["range"][0]) / raw["step"]) + 1 if "step" in raw else 3
        if raw.get("vary") == "each":
            return 3 * most(raw["body"]) ** 4
        return math.prod(map(most, raw.values()))
    return math.prod(map(most, raw)) if isinstance(raw, list) else 1


def listed(raw, w):
    """All members of a tree under one value of the dim ``w``, possibly repeated, with the options that they take."""
    if isinstance(raw, list):
        for items, taken in combined(*[listed(item, w) for item in raw]):
            yield [item for item, one in zip(items, raw, strict=True) if not is_removed(item, one)], taken
    elif not isinstance(raw, dict):
        yield raw, frozenset()
    elif "choose" in raw:
        for number, option in enumerate(raw["choose"]):
            for tree, taken in listed(option, w):
                yield tree, taken | {(id(raw), number)}
    elif "range" in raw:
        step = raw.get("step", 1)
        for number in range(round((raw["range"][1] - raw["range"][0]) / step) + 1):
            drawn = raw["range"][0] + number * step
            yield drawn * w if "of" in raw else drawn, frozenset()
    elif raw.get("vary") == "each":
        for times, counted in listed(raw["times"], w):
            for rounds, taken in combined(*[listed(raw["body"], w) for _ in range(evaluated(times, w))]):
                bodies = [body for body in rounds if not is_removed(body, raw["body"])]
                yield {"kind": "repeat", "rounds": bodies}, taken | counted
    else:
        keys = [key for key in raw if key != "where"]
        for values, taken in combined(*[listed(raw[key], w) for key in keys]):
            tree = dict(zip(keys, values, strict=True))
            scope = {"w": w, **{key: evaluated(tree[key], w) for key in ("a", "b") if key in tree}}
            if "where" not in raw or eval(raw["where"], {}, scope):
                yield tree, taken


def combined(*parts):
    for chosen in itertools.product(*map(list, parts)):
        yield [tree for tree, _ in chosen], frozenset().union(*[taken for _, taken in chosen])


def is_removed(item, raw):
    return item == "absent" and isinstance(raw, dict) and "choose" in raw


def evaluated(value, w):
    return eval(value, {}, {"w": w}) if isinstance(value, str) else value


def members(raw):
    """All members, and all options that some member takes."""
    found, taken = set(), set()
    for w, first in listed(raw["dims"]["w"], 0):
        for graph, others in listed(raw["graph"], w):
            found.add(identity({"archspec": 1, "dims": {"w": w}, "graph": graph}))
            taken |= first | others
    return found, taken


def options(raw):
    if isinstance(raw, dict):
        if "choose" in raw:
            yield from ((id(raw), number) for number in range(len(raw["choose"])))
        raw = raw.get("choose", list(raw.values()))
    if isinstance(raw, list):
        for item in raw:
            yield from options(item)


def loaded(raw):
    """The space, and what its members should be; skips those that are refused, rightly."""
    assume(most(raw) <= 40 * MOST)
    expected, taken = members(raw)
    assume(len(expected) <= MOST)
    try:
        space = Space(parse(json.dumps(raw)), elaborate=lambda tree: tree)
    except SpecError as error:
        if "no member" in str(error):
            assert not expected
        else:
            assert "never legal" in str(error)
            assert not set(options(raw)) <= taken
        reject()
    assert expected
    assert set(options(raw)) <= taken
    return space, expected


quick = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@quick
@given(spaces)
def test_members_and_cardinality_are_those_of_the_second_reading(raw):
    space, expected = loaded(raw)
    found = [identity(candidate.tree) for candidate in space.members()]
    assert len(found) == len(set(found))
    assert set(found) == expected
    count = space.cardinality()
    assert count.exact
    assert count.low == len(expected)


@quick
@given(spaces, st.integers(0, 2**32))
def test_draws_are_members_and_survive_encoding(raw, seed):
    space, expected = loaded(raw)
    random = Random(seed)
    drawn = [space.draw(random) for _ in range(20)]
    for candidate in drawn:
        assert identity(candidate.tree) in expected
        assert decode(space, encode(candidate)) == candidate
        assert space.candidate(candidate.values) == candidate
    assert np.array_equal(encode_all(drawn)[3], encode(drawn[3]), equal_nan=True)
    vectors = sample_encoded(space, np.random.default_rng(seed), 50)
    for vector in vectors:
        candidate = decode(space, vector)
        assert identity(candidate.tree) in expected
        assert np.array_equal(encode(candidate), vector, equal_nan=True)


@settings(quick, max_examples=40)
@given(spaces)
def test_every_member_is_reached(raw):
    assume(most(raw) < 40)
    space, expected = loaded(raw)
    random = Random(0)
    assert {identity(space.draw(random).tree) for _ in range(60 * len(expected))} == expected
    vectors = sample_encoded(space, np.random.default_rng(0), 60 * len(expected))
    assert {identity(decode(space, vector).tree) for vector in vectors} == expected
