import math
from collections import Counter
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.encoding import decode, encode, sample_encoded
from spaces.ranges import Range


def test_steps_of_a_tenth_are_decimal_numbers():
    found = Range(0.1, 0.7, step=0.1)
    assert list(found.numbers()) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert found.nearest(0.1 + 0.2) == 0.3
    assert found.nearest(0.35) is None


def test_whole_ends_give_whole_numbers_and_fractional_ends_a_continuum():
    assert list(Range(4, 12, step=4).numbers()) == [4, 8, 12]
    assert all(isinstance(number, int) for number in Range(1, 3).numbers())
    assert Range(0.5, 2).count is None


@given(st.integers(-50, 50), st.integers(0, 40), st.sampled_from([1, 2, 7, 0.5, 0.1]))
def test_every_number_is_its_own_nearest_and_neighbours_are_outside(low, more, step):
    found = Range(low, low + more * step if isinstance(step, int) else round(low + more * step, 6), step=step)
    numbers = list(found.numbers())
    assert len(numbers) == found.count == more + 1
    assert all(found.nearest(number) == number for number in numbers)
    assert found.nearest(numbers[-1] + step) is None
    assert found.nearest(numbers[0] - step) is None
    assert found.nearest(numbers[0] + step / 2) is None


def test_logarithmic_draws_are_even_in_the_logarithm():
    random, wide = Random(0), Range(1, 1000, log=True)
    drawn = [wide.draw(random) for _ in range(20_000)]
    assert min(drawn) == 1
    assert max(drawn) == 1000
    below = Counter(number <= 31 for number in drawn)[True] / len(drawn)
    assert below == pytest.approx(math.log(31.5 / 0.5) / math.log(1000.5 / 0.5), abs=0.02)


def test_vectors_draw_the_same_distributions(space):
    found = space(
        "graph: [{kind: k, a: {range: [1, 1000], log: true}, b: {range: [0.1, 0.9]},"
        " c: {range: [1.0e-4, 1.0e-1], log: true}}]"
    )
    vectors = sample_encoded(found, np.random.default_rng(0), 20_000)
    random = Random(0)
    scalars = np.array([found.draw(random).codes for _ in range(20_000)], dtype=float)
    np.testing.assert_allclose(np.log(vectors).mean(0), np.log(scalars).mean(0), atol=0.1)
    np.testing.assert_allclose(np.log(vectors).std(0), np.log(scalars).std(0), atol=0.1)
    for vector in vectors[:20]:
        assert np.array_equal(encode(decode(found, vector)), vector)


def test_a_multiple_of_a_dim_is_a_number_and_of_an_edge_an_expression(space):
    found = space(
        "dims: {width: {choose: [64, 96]}}\n"
        "graph: [{kind: k, a: {range: [1, 4], step: 0.5, of: width}, b: {range: [1, 2], of: width_in}}]"
    )
    node = found.candidate({"dims.width": 96, "graph[0].a": 2.5, "graph[0].b": 2}).tree["graph"][0]
    assert node == {"kind": "k", "a": 240, "b": "2 * width_in"}
    assert isinstance(node["a"], int)
