"""How many members library spaces have, against what the publications count or what follows from their choices."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from archspec.errors import SpecError
from spaces.space import library, load


def lists(options: int, lengths: range) -> int:
    """Lists of so many entries, each one of some options."""
    return sum(options**length for length in lengths)


def lightweight() -> int:
    """A layer of Lightweight Transformer Search has one of three numbers of heads, and an inner width."""
    total = 0
    for width in range(128, 1024, 64):
        inner = sum(hidden >= int(1.7 * width) for hidden in range(128, 4096, 64))
        total += lists(3 * inner, range(2, 16))
    return total


MEMBERS = {
    "hw_gpt_s": 3 * 2 * lists(3 * 3, range(10, 13)),
    "hw_gpt_m": 3 * 2 * lists(3 * 3, range(22, 25)),
    "hw_gpt_l": 3 * 2 * lists(3 * 3, range(34, 37)),
    "autoformer_tiny": 3 * lists(2 * 2, range(12, 15)),
    "autoformer_small": 3 * lists(3 * 3, range(12, 15)),
    "autoformer_base": 3 * lists(3 * 3, range(14, 17)),
    "gpt_lts": lightweight(),
    "hat": 2 * (3 * 2) ** 6 * 2 * lists(3 * 2 * 2 * 3, range(1, 7)),
    "flexibert": lists(2 * (2 + 1 + 2 * 2) * (2 + 2**3), range(2, 5, 2)),
    "mad_hybrid": lists((2 + 2 + 2 + 2 + 2 + 2 + 2 + 2 + 1 + 1) * 4, range(2, 5)),
    "brainformer": 3 * lists(2 * (3 + 2 * 4 * 2 + 2 * 4 * 2 * 4), range(3, 9)),
    "heterogeneous_heads": lists(15 * 3, range(4, 9)),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_a_space_has_as_many_members_as_follow_from_its_choices(name: str) -> None:
    cardinality = load(name).cardinality()
    assert cardinality.exact
    assert cardinality.low == MEMBERS[name]


def test_published_numbers_count_layers_that_are_not_there() -> None:
    assert f"{2 * 6**6 * 2 * 6 * 36**6:.0e}" == "2e+15"  # HAT: "10^15", six decoder layers whatever their number
    assert f"{3 * 3 * 9**16:.1e}" == "1.7e+16"  # AutoFormer: "1.7 x 10^16"
    assert MEMBERS["hat"] < 2 * 6**6 * 2 * 6 * 36**6
    assert MEMBERS["autoformer_base"] < 3 * 3 * 9**16


def test_flexibert_lacks_two_operators_and_heads_of_transforms() -> None:
    published = lists(6 * 2 * 2 * (2 + 2**3), range(2, 5, 2))
    assert f"{published:.3g}" == "3.32e+09"
    assert MEMBERS["flexibert"] == lists(6 * 2 * 2 * 10 - 2 * 2 * 10 * 2 - 2 * 10, range(2, 5, 2))  # wma and dct, dft


def test_an_inner_width_below_the_least_is_refused() -> None:
    space = load("gpt_lts")
    values = {**space.default().values, "dims.width": 960, "graph[2].body[0].channel.hidden": 1600}
    with pytest.raises(SpecError, match="does not hold"):
        space.candidate(values)


def test_the_page_of_the_library_lists_its_spaces_and_their_members() -> None:
    page = (Path(__file__).parents[2] / "docs/library.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|", page, re.M))
    assert rows == {name: str(load(name).cardinality()) for name in library()}
