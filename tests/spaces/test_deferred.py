from random import Random

import pytest

from archspec.errors import SpecError
from archspec.source import parse
from archspec.spec import from_tree
from spaces.space import Space

TEXT = """
dims: {width: {choose: [64, 128]}}
blocks: {mix: {kind: attention, heads: {choose: [2, 4, 8]}, where: WHERE}}
graph:
  - {kind: token_embedding, width: width}
  - PLACE
  - lm_head
"""


@pytest.mark.parametrize(
    "place",
    [
        "{kind: transformer_layer, mixer: {kind: attention, heads: {choose: [2, 4, 8]}, where: WHERE}}",
        "{kind: repeat, times: 2, body: [{kind: attention, heads: {choose: [2, 4, 8]}, where: WHERE}]}",
        "{kind: transformer_layer, mixer: mix}",
        "{kind: residual, body: mix}",
        "mix",
        "{kind: mix, name: here}",
    ],
)
def test_a_constraint_on_the_width_of_an_edge_is_kept(space, place):
    text = TEXT.replace("PLACE", place)
    if "mix}" not in place and "mix," not in place and place != "mix":
        text = text.replace("blocks: {mix: {kind: attention, heads: {choose: [2, 4, 8]}, where: WHERE}}\n", "")
    found = space(text.replace("WHERE", "width_in / heads > 16"), elaborate=from_tree)
    assert found.cardinality().low == 6
    random, met = Random(0), set()
    for _ in range(60):
        values = found.sample(random).values
        met.add((values["dims.width"], next(value for path, value in values.items() if path.endswith("heads"))))
    assert met == {(64, 2), (128, 2), (128, 4)}
    (line,) = found.refusals.lines()
    assert "`width_in / heads > 16` does not hold" in line


def test_a_constraint_on_a_name_that_nobody_binds_says_so(space):
    text = TEXT.replace("PLACE", "mix").replace("WHERE", "width_inn > 4")
    with pytest.raises(SpecError, match="nothing here is called 'width_inn'(.|\n)*did you mean width_in"):
        space(text, elaborate=from_tree).sample(Random(0))


def test_axes_may_be_read():
    tree = parse(
        "archspace: 1\ninterface: {kind: image_classification, image: [8, 8, 1], classes: 2}\n"
        "graph: [{kind: pool, window: {choose: [1, 2, 4]}, where: row / window >= 4}, {kind: pool}, classifier]"
    )
    found, random = Space(tree), Random(0)
    assert {found.sample(random).values["graph[0].window"] for _ in range(30)} == {1, 2}
    assert any("`row / window >= 4` does not hold" in line for line in found.refusals.lines())
