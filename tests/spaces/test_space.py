from random import Random

import optuna
import pytest

from archspec.errors import SpecError
from archspec.source import Map, parse
from spaces.space import Space, load

LAYERS = """
dims: {width: {choose: [64, 128], default: 128}}
graph:
  - {kind: token_embedding, width: width}
  - kind: repeat
    times: {range: [1, 3]}
    vary: each
    body:
      kind: transformer_layer
      mixer:
        choose:
          - {kind: attention, heads: {choose: [2, 4, 8]}, kv_heads: {choose: [1, 2, 4]}, where: heads % kv_heads == 0}
          - {kind: depthwise_convolution, size: {choose: [3, 5]}}
          - absent
  - {choose: [rms_norm, absent]}
  - lm_head
"""

VALUES = {
    "dims.width": 64,
    "graph[1].times": 2,
    "graph[1].body[0].mixer": "attention",
    "graph[1].body[0].mixer.attention.heads": 4,
    "graph[1].body[0].mixer.attention.kv_heads": 2,
    "graph[1].body[1].mixer": "absent",
    "graph[2]": "absent",
}


def test_a_candidate_is_a_spec_without_choices(space):
    tree = space(LAYERS).candidate(VALUES).tree
    assert tree["archspec"] == 1
    assert tree["dims"] == {"width": 64}
    assert tree["graph"] == [
        {"kind": "token_embedding", "width": "width"},
        {
            "kind": "repeat",
            "rounds": [
                {"kind": "transformer_layer", "mixer": {"kind": "attention", "heads": 4, "kv_heads": 2}},
                {"kind": "transformer_layer", "mixer": "absent"},
            ],
        },
        "lm_head",
    ]
    assert tree["graph"].where(2).line == 19  # the head keeps its place in the file


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"dims.width": 100}, "100 cannot be chosen here"),
        ({"dims.width": None}, "None cannot be chosen here"),
        ({"dims.widht": 64}, "did you mean dims.width"),
        ({"graph[1].body[2].mixer": "absent"}, "not reached"),
        ({"graph[1].times": 3}, "no value is given"),
        (
            {"graph[1].body[0].mixer.attention.heads": 2, "graph[1].body[0].mixer.attention.kv_heads": 4},
            "does not hold",
        ),
    ],
)
def test_values_that_make_no_candidate_are_refused(space, change, cause):
    with pytest.raises(SpecError, match=cause):
        space(LAYERS).candidate({**VALUES, **change})


def test_the_default_takes_written_defaults_then_firsts(space):
    values = space(LAYERS).default().values
    assert values["dims.width"] == 128
    assert values["graph[1].times"] == 1
    assert values["graph[1].body[0].mixer.attention.heads"] == 2


def test_options_of_one_kind_have_labels_of_their_own(space):
    found = space(
        "graph: [{choose: [{kind: k, a: 1}, {kind: k, a: 2}, {name: n, kind: k}, [x, y], [y, x], k, true, 1]}]"
    )
    assert found.slots[0].node.labels == ["k", "k#2", "n", "list", "list#2", "k#3", True, 1]
    assert [found.candidate({"graph[0]": label}).codes for label in (True, 1)] == [(6,), (7,)]


def test_a_trial_suggests_candidates_and_is_asked_only_for_reached_choices(space):
    found = space(LAYERS)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    met = set()
    for _ in range(60):
        trial = study.ask()
        try:
            candidate = found.suggest(trial)
        except SpecError as error:
            assert "does not hold" in str(error)
            continue
        assert trial.params == candidate.values
        met.add(candidate)
    assert len(met) > 20


def test_a_trial_suggests_every_kind_of_range(space):
    found = space(
        "graph: [{kind: k, a: {range: [0.1, 0.7], step: 0.1}, b: {range: [1.0e-4, 1.0], log: true},"
        " c: {range: [2, 8], step: 2}, d: {range: [1, 100], log: true}}]"
    )
    for seed in range(5):
        trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
        candidate = found.suggest(trial)
        assert found.candidate(candidate.values) == candidate
        assert candidate.values == pytest.approx(trial.params)


def test_members_share_what_is_alike(space):
    found, random = space(LAYERS), Random(0)
    first, second = found.draw(random).tree, found.draw(random).tree
    assert first["graph"][0] is second["graph"][0]
    bodies = {}
    for _ in range(50):
        for body in found.draw(random).tree["graph"][1]["rounds"]:
            assert bodies.setdefault(repr(body), body) is body


def test_trees_of_candidates_do_not_change_one_another(space):
    found = space("dims: {w: {choose: [1, 2]}}\ngraph: [{kind: k, a: {choose: [3, 4]}}]")
    trees = [candidate.tree for candidate in found.members()]
    assert {(tree["dims"]["w"], tree["graph"][0]["a"]) for tree in trees} == {(1, 3), (1, 4), (2, 3), (2, 4)}


def test_a_loop_keeps_one_body_and_overrides_the_others(space):
    found = space("graph: [{kind: loop, vary: each, times: 3, body: {kind: k, a: {choose: [1, 2]}}}]")
    values = {f"graph[0].body[{turn}].a": a for turn, a in enumerate([1, 2, 1])}
    loop = found.candidate(values).tree["graph"][0]
    assert loop == {
        "kind": "loop",
        "times": 3,
        "body": {"kind": "k", "a": 1},
        "overrides": {"1": {"kind": "k", "a": 2}},
    }


def test_sampling_counts_what_the_language_refuses(space):
    def elaborate(tree: Map) -> Map:
        if tree["graph"][0]["a"] == 2:
            from archspec.errors import Problem

            raise SpecError(Problem(f"{tree['graph'][0]['b']} of these are too many", None, "graph[0].a"))
        return tree

    found = space("graph: [{kind: k, a: {choose: [1, 2]}, b: {range: [1, 9]}}]", elaborate=elaborate)
    random = Random(0)
    assert {found.sample(random).tree["graph"][0]["a"] for _ in range(50)} == {1}
    (line,) = found.refusals.lines()
    assert "of these are too many (graph[0].a)" in line
    assert found.refusals.tried == 50 + found.refusals.refused


def test_a_space_without_member_says_what_refused_how_many(space):
    with pytest.raises(SpecError) as error:
        space("dims: {w: {range: [3, 5]}}\ngraph: [{kind: k, where: w < 4}, {kind: k, where: w > 3}]")
    text = str(error.value)
    assert "the space has no member: 1,000 candidates were tried" in text
    assert "`w < 4` does not hold (space.yaml:5:26  graph[0])" in text
    assert "`w > 3` does not hold (space.yaml:5:51  graph[1])" in text


def test_an_option_that_is_never_legal_is_named(space):
    with pytest.raises(SpecError) as error:
        space("dims: {w: {choose: [8, 16]}}\ngraph: [{kind: k, heads: {choose: [2, 3, 4]}, where: w % heads == 0}]")
    (problem,) = error.value.problems
    assert problem.cause == "the option 3 is never legal"
    assert problem.hint == "nothing satisfies `w % heads == 0` with it"
    assert (problem.path, problem.mark.line, problem.mark.column) == ("graph[0].heads", 5, 39)


def test_never_legal_reaches_options_of_rounds_and_of_dims(space):
    with pytest.raises(SpecError, match="the option k is never legal"):
        space(
            "graph: [{kind: repeat, vary: each, times: 2,"
            " body: {choose: [{kind: k, a: {choose: [1, 2]}, where: a > 2}, x]}}]"
        )
    with pytest.raises(SpecError, match="the option 7 is never legal\n  nothing satisfies `w % 2 == 0` with it"):
        space("dims: {w: {choose: [7, 8]}}\ngraph: [{kind: k, where: w % 2 == 0}]")


def test_a_constraint_of_the_whole_file_reads_dims(space):
    found = space("dims: {a: {range: [1, 4]}, b: {range: [1, 4]}}\nwhere: a + b == 4\ngraph: [x]")
    assert found.cardinality().low == 3
    assert "where" not in found.draw(Random(0)).tree


def test_rare_members_among_many_dims_are_drawn(space):
    dims = ", ".join(f"{name}: {{range: [1, 30]}}" for name in "abcd")
    found = space(f"dims: {{{dims}}}\ngraph: [{{kind: k, where: a + b == c + d and a > 25}}]")
    numbers = found.draw(Random(0)).tree["dims"]
    assert numbers["a"] + numbers["b"] == numbers["c"] + numbers["d"]


def test_a_space_extends_a_spec_and_is_overridden_by_path(tmp_path):
    (tmp_path / "base.yaml").write_text(
        "archspec: 1\nname: base\ninterface: {kind: causal_lm, vocab: 256, length: 64}\ndims: {width: 64}\n"
        "graph:\n- {kind: token_embedding, width: width}\n"
        "- {kind: repeat, name: layers, times: 2, body: {kind: transformer_layer, channel: {kind: glu, hidden: 128}}}\n"
        "- lm_head\n"
    )
    (tmp_path / "space.yaml").write_text(
        "archspace: 1\nextends: base.yaml\ndims: {width: {choose: [32, 64]}}\n"
        "set: {graph.layers.times: {range: [1, 4]}}\n"
    )
    found = load(tmp_path / "space.yaml", set={"graph.layers.body.channel.hidden": {"choose": [64, 128, 256]}})
    assert found.cardinality().low == 2 * 4 * 3
    candidate = found.sample(Random(0))
    assert candidate.spec.name == "base"
    with pytest.raises(SpecError, match="did you mean"):
        load(tmp_path / "space.yaml", set={"graph.layer.times": 3})


def test_a_space_may_be_given_as_a_tree():
    tree = parse(
        "archspace: 1\ninterface: {kind: backbone, inputs: {x: {width: 8, axes: {token: 4}}}}\n"
        "graph: [{choose: [layer_norm, rms_norm]}]"
    )
    assert len({candidate.spec.full for candidate in Space(tree).members()}) == 2


def test_slots_know_what_they_are_reached_by(space):
    found = space("dims: {w: {choose: [2, 3]}}\ngraph: [{choose: [x, {kind: k, a: {choose: [1, 2]}}]}]")
    (above, option) = found.slots[2].given[0]
    assert (found.slots[above].path, option) == ("graph[0]", 1)
