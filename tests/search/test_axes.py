"""Axes: every value has a place, and ticks are round, told apart and within."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as some
from matplotlib.ticker import MaxNLocator

from search.axes import Scale, stairs

numbers = some.floats(-1e12, 1e12).map(lambda value: float(f"{value:.6g}"))


@given(some.lists(numbers, max_size=20))
def test_ticks_are_told_apart_and_within(values):
    scale = Scale.of(values)
    assert all(0 <= scale.share(value) <= 1 for value in values)
    ticks = scale.ticks()
    assert ticks == sorted(set(ticks)) and len({words for _, words in ticks}) == len(ticks)
    assert all(-1e-9 <= scale.share(value) <= 1 + 1e-9 for value, _ in ticks)
    assert scale.log == bool(values and min(values) > 0 and max(values) > 10 * min(values))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (2.3, 8.4), (-3.0, 40.0), (2.3005, 2.3012)])
def test_steps_are_as_round_as_those_of_matplotlib(low, high):
    ticks = [value for value, _ in Scale(low, high).ticks(5)]
    round_steps = {1.0, 2.0, 2.5, 5.0, 10.0}
    theirs = MaxNLocator(5, steps=sorted(round_steps)).tick_values(low, high)
    step = ticks[1] - ticks[0]
    assert any(math.isclose(step / 10 ** math.floor(math.log10(step) + 1e-9), one, rel_tol=1e-6) for one in round_steps)
    assert 0.39 < step / (theirs[1] - theirs[0]) < 2.6


def test_counts_have_whole_ticks_and_bytes_their_unit():
    assert [words for _, words in Scale.of([0, 3], whole=True).ticks()] == ["0", "1", "2", "3"]
    told = [words for _, words in Scale.of([1e6, 5e7], "bytes").ticks()]
    assert told == ["1 MB", "3 MB", "10 MB", "30 MB"]


def test_stairs_keep_a_value_until_the_next():
    assert stairs([(0, 3), (2, 1)], 5) == [(0, 3), (2, 3), (2, 1), (5, 1)] and stairs([], 5) == []
