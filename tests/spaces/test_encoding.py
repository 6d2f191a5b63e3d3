import math

import numpy as np
import pytest

from archspec.errors import SpecError
from spaces.encoding import decode, encode, sample_encoded

TEXT = "graph: [{choose: [{kind: k, a: {range: [1, 3]}, b: {range: [0.5, 1.5], step: 0.5}, where: a > b}, x]}]"


def test_a_vector_holds_positions_and_numbers_and_nan(space):
    found = space(TEXT)
    taken = found.candidate({"graph[0]": "k", "graph[0].k.a": 3, "graph[0].k.b": 0.5})
    assert encode(taken).tolist() == [0, 3, 0.5]
    other = encode(found.candidate({"graph[0]": "x"}))
    assert other[0] == 1
    assert np.isnan(other[1:]).all()


@pytest.mark.parametrize(
    "vector",
    [
        [0, 3],
        [2, math.nan, math.nan],
        [0.5, 1, 1],
        [0, math.nan, 1],
        [0, 4, 1],
        [0, 3, 0.7],
        [1, 3, math.nan],
        [0, 1, 1.5],
        [math.nan] * 3,
    ],
)
def test_vectors_that_stand_for_nothing_are_refused(space, vector):
    with pytest.raises(SpecError):
        decode(space(TEXT), np.array(vector))


def test_columns_of_a_batch_are_contiguous(space):
    vectors = sample_encoded(space(TEXT), np.random.default_rng(0), 5000)
    assert vectors.shape == (5000, 3)
    assert vectors.flags.f_contiguous
    assert np.array_equal(sample_encoded(space(TEXT), np.random.default_rng(0), 5000), vectors, equal_nan=True)


def test_what_cannot_be_tabulated_is_still_drawn(space):
    found = space("graph: [{kind: k, a: {range: [0.1, 0.9]}, b: {range: [0.1, 0.9]}, where: a > b}]")
    vectors = sample_encoded(found, np.random.default_rng(0), 100)
    assert (vectors[:, 0] > vectors[:, 1]).all()


def test_a_space_whose_members_are_not_met_says_so(space):
    found = space("graph: [{kind: k, a: {range: [0.1, 0.9]}, where: a > 1}]")
    with pytest.raises(SpecError, match="no member: 1,000 candidates were tried"):
        sample_encoded(found, np.random.default_rng(0), 1)
