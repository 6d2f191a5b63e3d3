from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archspec.errors import SpecError
from archspec.readable import readable
from archspec.source import parse
from spaces.identity import identity
from spaces.locating import locate
from spaces.space import library, load
from tests.spaces.test_random_spaces import loaded, quick, spaces


@quick
@given(spaces, st.integers(0, 2**32))
def test_every_member_is_found_by_its_tree(raw, seed):
    space, _ = loaded(raw)
    random = Random(seed)
    for _ in range(5):
        candidate = space.draw(random)
        assert identity(locate(space, candidate.tree).tree) == identity(candidate.tree)


@pytest.mark.parametrize("name", library())
def test_members_of_the_library_are_found_by_the_file_that_they_are_written_to(name):
    space, random = load(name), Random(0)
    for candidate in [space.default(), *(space.draw(random) for _ in range(3))]:
        assert locate(space, parse(readable(candidate.tree))).codes == candidate.codes


def test_a_loop_is_found_by_its_overrides(space):
    found = space("graph: [{kind: loop, vary: each, times: {range: [1, 3]}, body: {kind: k, a: {choose: [1, 2]}}}]")
    assert all(locate(found, member.tree).codes == member.codes for member in found.members())


def test_what_is_no_member_is_refused(space):
    found = space("graph: [{kind: k, a: {range: [1, 4]}, b: {range: [1, 4]}, where: a > b}]")
    tree = found.candidate({"graph[0].a": 4, "graph[0].b": 2}).tree
    for wrong in ("a: 2", "a: 9", "a: x", "a: 3, c: 1"):
        with pytest.raises(SpecError, match="no member of test"):
            locate(found, parse(readable(tree).replace("a: 4", wrong)))
