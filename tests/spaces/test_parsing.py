import pytest

from archspec.errors import SpecError

GRAPH = "graph: [{kind: token_embedding, width: width}, {kind: mlp, hidden: CHOICE}, lm_head]"

WRONG = {
    "{choose: []}": "an empty list of options",
    "{choose: 64}": "choose takes a list of options",
    "{choose: [64, 64]}": "64 stands twice among the options",
    "{choose: [{a: 1, b: 2}, {b: 2, a: 1}]}": "the option mapping stands twice among the options",
    "{choose: [1, 2], defualt: 1}": "did you mean default?",
    "{choose: [1, 2], kind: mlp}": "fields belong into the options",
    "{choose: [1, 2], default: 3}": "the default 3 is not among the options",
    "{choose: [gelu, silu], default: gleu}": "did you mean gelu?",
    "{chose: [1, 2]}": "did you mean choose?",
    "{choices: [1, 2]}": "did you mean choose?",
    "{rang: [1, 2], step: 1}": "did you mean range?",
    "{range: [1, 2], bind: call}": "bind: call is not implemented yet",
    "{range: [1, 2], bind: serach}": "did you mean search?",
    "{range: 5}": "a range takes its two ends",
    "{range: [1, 2, 3]}": "a range takes its two ends",
    "{range: [a, 3]}": "an end of a range is a number, not 'a'",
    "{range: [true, 3]}": "an end of a range is a number, not True",
    "{range: [1, .inf]}": "an end of a range is a number, not inf",
    "{range: [4, 1]}": "range: [1, 4]",
    "{range: [1, 10], step: 4}": "end at 9 or 13",
    "{range: [1, 2], step: 0.3}": "end at 1.9 or 2.2",
    "{range: [1, 4], step: 0}": "a step is a number above 0",
    "{range: [1, 4], step: x}": "a step is a number above 0",
    "{range: [0, 4], log: true}": "a logarithm needs a low end above 0",
    "{range: [1, 4], log: 2}": "log is true or false",
    "{range: [1, 4], log: true, step: 3}": "a logarithmic range has no step",
    "{range: [1, 4], of: widht}": "did you mean width",
    "{range: [1, 4], default: 9}": "the default 9 is not in the range",
    "{range: [1, 4], stp: 1}": "did you mean step?",
}


@pytest.mark.parametrize("written", WRONG)
def test_a_wrong_choice_is_refused_at_its_place(space, written):
    with pytest.raises(SpecError) as error:
        space("dims: {width: 64}\n" + GRAPH.replace("CHOICE", written))
    assert WRONG[written] in str(error.value)
    (problem,) = error.value.problems
    assert problem.path.startswith("graph[1].hidden")
    assert problem.mark.file == "space.yaml"
    assert problem.mark.line == 5
    assert problem.mark.column >= 70


REPEAT = "dims: {depth: {choose: [2, 3]}}\ngraph: [{kind: repeat, vary: each, BODY}]"

WRONG_ROUNDS = {
    "times: 2, body: mlp": "every round is alike",
    "times: 2": "vary: each needs body:",
    "body: {choose: [a, b]}": "vary: each needs times:",
    "times: dpeth, body: {choose: [a, b]}": "did you mean depth?",
    "times: 1.5, body: {choose: [a, b]}": "1.5 is no number of rounds",
    "times: {range: [-1, 2]}, body: {choose: [a, b]}": "no number of rounds",
    "times: {choose: [1, x]}, body: {choose: [a, b]}": "no dim is called 'x'",
    "times: 5000, body: {choose: [a, b]}": "5000 rounds are more than 4,096",
    "times: 2, body: {choose: [a, b]}, overrides: {0: c}": "overrides says it again",
}


@pytest.mark.parametrize("body", WRONG_ROUNDS)
def test_wrong_rounds_are_refused(space, body):
    with pytest.raises(SpecError, match=WRONG_ROUNDS[body].replace("?", r"\?")):
        space(REPEAT.replace("BODY", body))


def test_vary_belongs_to_rounds(space):
    with pytest.raises(SpecError, match="only the rounds of a repeat or loop vary"):
        space("graph: [{kind: mlp, vary: each, hidden: {choose: [1, 2]}}]")
    with pytest.raises(SpecError, match="did you mean each"):
        space("graph: [{kind: repeat, vary: eahc, times: 2, body: {choose: [a, b]}}]")


def test_all_independent_problems_are_told_at_once(space):
    with pytest.raises(SpecError) as error:
        space("graph: [{kind: mlp, hidden: {choose: []}, bias: {rang: [1, 2]}}, {choose: [a, a]}]")
    assert len(error.value.problems) == 3


@pytest.mark.parametrize("dims", ["{choose: [{w: 1}, {w: 2}]}", "{w: {choose: [1, [2]]}}", "{w: {a: 1}}"])
def test_dims_are_numbers(space, dims):
    with pytest.raises(SpecError, match="a dim is a number|dims as a whole cannot be a choice"):
        space(f"dims: {dims}\ngraph: [x]")


def test_dims_are_no_multiples_of_themselves(space):
    with pytest.raises(SpecError, match="is a multiple of itself"):
        space("dims: {a: {range: [1, 2], of: b}, b: {range: [1, 2], of: a}}\ngraph: [x]")


@pytest.mark.parametrize(
    ("where", "cause"),
    [
        ("3", "a constraint is an expression, not 3"),
        ("'a ='", "is no number and no expression"),
        ("a.b == 1", "not allowed"),
        ("body > 1", "body is never a number here"),
    ],
)
def test_a_wrong_constraint_is_refused(space, where, cause):
    with pytest.raises(SpecError, match=cause):
        space(
            "graph: [{kind: k, a: {choose: [1, 2]}, body: {choose: [[x], [y]]}, where: WHERE}]".replace("WHERE", where)
        )


def test_a_file_that_is_no_space_is_told_so(tmp_path):
    from spaces.space import load

    spec = tmp_path / "spec.yaml"
    spec.write_text("archspec: 1\n")
    with pytest.raises(SpecError, match="archspace: 1"):
        load(spec)
    spec.write_text("archspace: 2\n")
    with pytest.raises(SpecError, match="version"):
        load(spec)
