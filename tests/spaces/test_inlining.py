import pytest

from archspec.errors import SpecError

BLOCKS = """
blocks:
  mix: {choose: [{kind: attention, heads: 2}, {kind: depthwise_convolution, size: {choose: [3, 5]}}]}
  layer: {kind: transformer_layer, mixer: mix}
  last: {kind: transformer_layer, mixer: absent}
"""


def test_blocks_of_a_varying_repeat_choose_for_every_round(space):
    found = space(BLOCKS + "graph: [{kind: repeat, vary: each, times: 2, body: layer}, last]")
    assert [slot.path for slot in found.slots][:3] == [
        "graph[0].body[0].mixer",
        "graph[0].body[0].mixer.depthwise_convolution.size",
        "graph[0].body[1].mixer",
    ]
    assert found.cardinality().low == 9
    tree = next(iter(found.members())).tree
    assert list(tree["blocks"]) == ["last"]  # what is written out and used nowhere else is gone


def test_blocks_used_elsewhere_keep_their_own_choice(space):
    found = space(BLOCKS + "graph: [{kind: repeat, vary: each, times: 2, body: layer}, layer]")
    assert found.cardinality().low == 27


def test_together_a_block_chooses_once(space):
    found = space(BLOCKS + "graph: [{kind: repeat, times: 2, vary: together, body: layer}, layer]")
    assert found.cardinality().low == 3
    assert "vary" not in next(iter(found.members())).tree["graph"][0]


def test_options_that_are_blocks_are_called_by_their_names(space):
    text = "blocks: {wide: {kind: k, a: {choose: [1, 2]}}, deep: {kind: k, a: {choose: [3, 4]}}}\n"
    found = space(text + "graph: [{kind: repeat, vary: each, times: 2, body: {choose: [wide, {kind: deep, name: d}]}}]")
    assert found.slots[0].node.labels == ["wide", "deep"]
    assert found.candidate(
        {
            "graph[0].body[0]": "deep",
            "graph[0].body[0].deep.a": 3,
            "graph[0].body[1]": "wide",
            "graph[0].body[1].wide.a": 1,
        }
    ).tree["graph"][0]["rounds"] == [{"kind": "k", "a": 3, "name": "d"}, {"kind": "k", "a": 1}]


def test_a_block_with_parameters_cannot_be_written_out(space):
    text = "blocks: {layer: {parameters: {heads: 2}, kind: attention, heads: heads, window: {choose: [2, 4]}}}\n"
    with pytest.raises(SpecError, match="write it out in the body"):
        space(text + "graph: [{kind: repeat, vary: each, times: 2, body: {kind: layer, heads: 4}}]")


def test_a_block_that_contains_itself_is_refused(space):
    text = "blocks: {a: [b, {choose: [x, y]}], b: [a]}\n"
    with pytest.raises(SpecError, match="contains itself"):
        space(text + "graph: [{kind: repeat, vary: each, times: 2, body: a}]")
