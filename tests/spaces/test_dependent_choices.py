"""Spaces whose parts depend on each other: members are listed, counted, drawn and varied within them.

The numbers are worked out by hand.
"""

import numpy as np
import pytest

from spaces.cardinality import Cardinality
from spaces.encoding import decode, sample_encoded
from spaces.identity import identity
from spaces.variation import Variation

CASES = {
    "rising widths by root where": (
        "dims: {w1: {choose: [1,2,3]}, w2: {choose: [1,2,3]}, w3: {choose: [1,2,3]}}\n"
        "where: [w1 <= w2, w2 <= w3]\n"
        "graph:\n"
        "- {kind: a, width: w1}\n"
        "- {kind: b, width: w2}\n"
        "- {kind: c, width: w3}\n",
        10,
    ),
    "pyramid each stage depth and width": (
        "dims: {w1: {choose: [8,16]}, w2: {choose: [16,32]}, d1: {range: [1,3]}, d2: {range: [1,2]}}\n"
        "where: w1 < w2\n"
        "graph:\n"
        "- {kind: repeat, times: d1, body: {kind: k, width: w1, e: {choose: [1,2]}}}\n"
        "- {kind: repeat, times: d2, body: {kind: k, width: w2, e: {choose: [1,2]}}}\n",
        3 * 3 * 2 * 2 * 2,
    ),
    "pyramid, each round chooses": (
        "dims: {w1: {choose: [8,16]}, w2: {choose: [16,32]}, d1: {range: [1,3]}, d2: {range: [1,2]}}\n"
        "where: w1 < w2\n"
        "graph:\n"
        "- {kind: repeat, vary: each, times: d1, body: {kind: k, width: w1, e: {choose: [1,2]}}}\n"
        "- {kind: repeat, vary: each, times: d2, body: {kind: k, width: w2, e: {choose: [1,2,16]}, "
        "where: w2 % e == 0}}\n",
        3 * (2 + 4 + 8) * (3 + 9),
    ),
    "total depth bound": (
        "dims: {d1: {range: [1,3]}, d2: {range: [1,3]}}\n"
        "where: d1 + d2 <= 4\n"
        "graph:\n"
        "- {kind: repeat, vary: each, times: d1, body: {choose: [x, y]}}\n"
        "- {kind: repeat, vary: each, times: d2, body: {choose: [x, y, z]}}\n",
        sum(2**a * 3**b for a in (1, 2, 3) for b in (1, 2, 3) if a + b <= 4),
    ),
    "option only for deep": (
        "dims: {d: {range: [1,4]}}\n"
        "graph:\n"
        "- {kind: repeat, vary: each, times: d, body: {choose: [x, {kind: k, a: {choose: [1,2]}, where: "
        "d >= 3}]}}\n",
        1 + 1 + 3**3 + 3**4,
    ),
    "stage of stages": (
        "graph:\n"
        "- kind: repeat\n"
        "  vary: each\n"
        "  times: {range: [1,2]}\n"
        "  body: {kind: s, w: {choose: [4, 8]}, inner: {kind: repeat, vary: each, times: {range: "
        "[1,2]}, body: {choose: [x, y]}}}\n",
        (2 * 6) + (2 * 6) ** 2,
    ),
    "stage of stages shared": (
        "graph:\n"
        "- kind: repeat\n"
        "  vary: each\n"
        "  times: {range: [1,2]}\n"
        "  body: {kind: s, w: {choose: [4, 8]}, inner: {kind: repeat, times: {range: [1,3]}, body: "
        "{choose: [x, y]}}}\n",
        (2 * 3 * 2) + (2 * 3 * 2) ** 2,
    ),
    "choice by another's option": (
        "dims: {t: {choose: [0, 1]}}\n"
        "graph:\n"
        "- {choose: [{kind: p, a: {range: [1,3]}, where: t == 0}, {kind: q, b: {range: [1,4]}, where: t "
        "== 1}]}\n"
        "- {choose: [{kind: r, where: t == 0}, {kind: s, where: t == 1}]}\n",
        7,
    ),
    "depth through expression": (
        "dims: {w: {choose: [2,3]}, d: w + 1}\n"
        "graph:\n"
        "- {kind: repeat, vary: each, times: d, body: {choose: [x, y]}}\n",
        2**3 + 2**4,
    ),
    "blocks shared vs each": (
        "blocks: {n: {choose: [x, y]}}\n"
        "graph:\n"
        "- n\n"
        "- {kind: repeat, vary: each, times: {range: [1,2]}, body: {kind: k, norm: n, a: {choose: [1,2]}}}\n",
        2 * (4 + 16),
    ),
    "depth-limited index": (
        "dims: {d: {range: [2,3]}, k: {range: [1,3]}}\n"
        "where: k <= d\n"
        "graph:\n"
        "- {kind: repeat, vary: each, times: d, body: {choose: [x, y]}}\n"
        "- {kind: m, k: k}\n",
        2 * 4 + 3 * 8,
    ),
    "where across nodes on same list": (
        "graph:\n"
        "- {kind: both, a: {range: [1,4]}, b: {range: [1,4]}, where: a + b == 5, inner: {kind: repeat, "
        "vary: each, times: {choose: [1,2]}, body: {choose: [x,y]}}}\n",
        4 * (2 + 4),
    ),
    "times tied": (
        "graph:\n"
        "- {kind: repeat, vary: each, times: {range: [1,3]}, r: {range: [1,3]}, where: times * r <= 3, "
        "body: {choose: [x,y]}}\n",
        3 * 2 + 1 * 4 + 1 * 8,
    ),
    "ladder of multiples": (
        "dims: {w: {choose: [2,4]}, h: {range: [1,3], of: w}}\n"
        "graph:\n"
        "- {kind: k, h: h, m: {range: [1,2], of: h}, where: m % 4 == 0}\n",
        sum(1 for w in (2, 4) for f in (1, 2, 3) for m in (1, 2) if (m * f * w) % 4 == 0),
    ),
}


@pytest.mark.parametrize(("text", "count"), CASES.values(), ids=CASES.keys())
def test_dependent_choices(space, text, count):
    found = space(text)
    members = {identity(member.tree) for member in found.members()}
    assert len(members) == count
    assert found.cardinality() == Cardinality(count, count)
    generator, variation = np.random.default_rng(0), Variation(found)
    vectors = sample_encoded(found, generator, 20_000)
    assert trees(found, vectors) == members
    made = variation.mutate(generator, vectors), variation.cross(generator, vectors, vectors[::-1])
    assert trees(found, np.concatenate(made)) == members


def trees(space, vectors):
    different = {vector.tobytes(): vector for vector in vectors}
    return {identity(decode(space, vector).tree) for vector in different.values()}
