from random import Random

import pytest

from archspec.errors import SpecError
from archspec.spec import from_tree
from spaces.identity import identity
from spaces.space import library, load

TEXT = (
    "dims: {width: {choose: [32, 48]}, inner: {range: [1, 2], of: width}}\n"
    "graph:\n"
    "- {kind: token_embedding, width: width}\n"
    "- choose: [absent, learned_position]\n"
    "- kind: repeat\n"
    "  vary: each\n"
    "  times: {range: [1, 2]}\n"
    "  body:\n"
    "    kind: transformer_layer\n"
    "    norm: rms_norm\n"
    "    mixer:\n"
    "      choose:\n"
    "      - {kind: attention, heads: {choose: [2, 3]}, where: width % heads == 0}\n"
    "      - {kind: depthwise_convolution, size: {range: [2, 3]}}\n"
    "    channel: {kind: glu, hidden: {range: [1, 1.5], step: 0.5, of: width}}\n"
    "- lm_head\n"
)
SLOT = "graph[2].body[*].mixer"


@pytest.mark.parametrize(
    "values",
    [
        {"dims.width": 48},
        {"dims.inner": 2},
        {"graph[1]": "absent"},
        {"graph[1]": "learned_position", "graph[2].times": 2},
        {SLOT: "attention"},
        {SLOT: "attention", f"{SLOT}.attention.heads": 2},
        {SLOT: "depthwise_convolution", "graph[2].body[*].channel.hidden": 1.5, "dims.width": 32},
        {"graph[2].body.channel.hidden": 1.5},
        {
            SLOT: "depthwise_convolution",
            f"{SLOT}.depthwise_convolution.size": 3,
            "graph[2].body[*].channel.hidden": 1,
        },
    ],
)
def test_members_are_those_with_the_values(space, values):
    whole = space(TEXT, elaborate=from_tree)
    frozen = whole.freeze(values)
    assert len(frozen.slots) < len(whole.slots)
    wanted = {path.replace("[*]", ""): value for path, value in values.items()}

    def has(candidate):
        folds = {slot.path: slot.fold for slot in whole.slots}
        return all(wanted.get(folds[path], value) == value for path, value in candidate.values.items())

    expected = {candidate.spec.full for candidate in whole.members() if has(candidate)}
    assert {candidate.spec.full for candidate in frozen.members()} == expected
    assert frozen.cardinality().low == frozen.cardinality().high == sum(1 for _ in frozen.members())


def test_a_frozen_space_is_frozen_further(space):
    whole = space(TEXT)
    once = whole.freeze({"graph[1]": "absent"}).freeze({"graph[1].body[*].mixer": "attention"})  # graph[1] is gone
    twice = whole.freeze({"graph[1]": "absent", SLOT: "attention"})
    assert {identity(one.tree) for one in once.members()} == {identity(one.tree) for one in twice.members()}
    assert [slot.path for slot in once.slots] == [slot.path for slot in twice.slots]
    assert any(slot.path == "graph[1].body[0].mixer.heads" for slot in once.slots)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dims.widht": 64}, "no choice has this path\n  did you mean dims.width"),
        ({"graph[2].body[*].mixr": "attention"}, "did you mean graph[2].body[*].mixer"),
        ({"dims.width": 64}, "64 cannot be chosen here\n  there are 32, 48"),
        ({SLOT: "atention"}, "there are attention, depthwise_convolution"),
        ({"dims.inner": 2.5}, "a number from 1 to 2"),
        ({"graph[2].body[1].mixer": "attention"}, "graph[2].body[*].mixer settles all rounds"),
        ({SLOT: "attention", f"{SLOT}.depthwise_convolution.size": 3}, "not reached by the others"),
        ({SLOT: "attention", f"{SLOT}.attention.heads": 3, "dims.width": 32}, "the space has no member"),
    ],
)
def test_what_cannot_be_frozen(space, values, message):
    with pytest.raises(SpecError) as raised:
        space(TEXT).freeze(values)
    assert message in str(raised.value)


@pytest.mark.parametrize("name", library())
def test_all_defaults_frozen_are_the_default(name):
    space = load(name)
    default = space.default()
    values = {slot.every: default.values[slot.path] for slot in space.slots if slot.path in default.values}
    frozen = space.freeze(values)
    assert not frozen.slots
    assert frozen.default().spec.full == default.spec.full
    one = {slot.every: default.values[slot.path] for slot in space.slots[:1]}
    space.freeze(one).sample(Random(0))
