import pytest

from spaces.cardinality import Cardinality


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("graph: [{choose: [a, b]}, {choose: [1, 2, 3]}]", 6),
        ("graph: [{choose: [{kind: k, a: {choose: [1, 2]}}, {kind: m, b: {range: [1, 5]}}, absent]}]", 8),
        ("graph: [{choose: [1, {range: [1, 4]}]}]", 4),  # what options have in common counts once
        (
            "graph: [{choose: [x, absent]}, {choose: [x, absent]}]",
            3,
        ),  # one of two alike is absent: which, does not show
        ("graph: [{choose: [x, absent]}, y, {choose: [x, absent]}]", 4),
        ("dims: {w: {choose: [2, 3]}}\ngraph: [{kind: k, a: {range: [1, 6]}, where: a % w == 0}]", 3 + 2),
        ("graph: [{kind: repeat, vary: each, times: {range: [1, 3]}, body: {choose: [x, y]}}]", 2 + 4 + 8),
        ("graph: [{kind: repeat, vary: each, times: {range: [2, 3]}, body: {choose: [x, y, absent]}}]", 1 + 2 + 4 + 8),
        ("graph: [{kind: loop, vary: each, times: {range: [1, 3]}, body: {kind: k, a: {choose: [1, 2]}}}]", 2 + 4 + 8),
        ("graph: [{kind: repeat, times: 3, body: {kind: k, a: {choose: [1, 2]}}}]", 2),
    ],
)
def test_counts(space, text, count):
    found = space(text)
    assert found.cardinality() == Cardinality(count, count)
    assert sum(1 for _ in found.members()) == count


def test_large_spaces_are_counted_exactly(space):
    found = space(
        "dims: {depth: {range: [2, 64]}}\n"
        "graph: [{kind: repeat, vary: each, times: depth,"
        " body: {kind: k, a: {range: [1, 5]}, b: {range: [1, 5]}, where: a >= b}}]"
    )
    assert found.cardinality().low == found.cardinality().high == sum(15**depth for depth in range(2, 65))


def test_what_cannot_be_counted_is_an_interval_that_says_so(space):
    tied = space("graph: [{kind: k, a: {range: [1, 5000]}, b: {range: [1, 5000]}, where: a >= b}]").cardinality()
    assert not tied.exact
    assert tied.low <= 5000 * 5001 // 2 <= tied.high
    assert str(tied) == "between 0 and 25,000,000"
    continuum = space("graph: [{kind: k, a: {range: [0.1, 0.5]}}]").cardinality()
    assert continuum.high is None
    assert "infinitely many" in str(continuum)
    # Two lists that may be alike, too many to list: exact is not claimed.
    alike = "[{range: [1, 1000]}, {choose: [{range: [1, 1000]}, absent]}, {choose: [{range: [1, 1000]}, absent]}]"
    assert not space(f"graph: {alike}").cardinality().exact
