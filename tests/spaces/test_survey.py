from random import Random

import pytest

from archspec.errors import SpecError
from archspec.spec import from_tree
from spaces.survey import Survey, check

TEXT = """
dims: {width: {choose: [64, 128]}}
graph:
  - {kind: token_embedding, width: width}
  - {kind: transformer_layer, mixer: {kind: attention, HEADS}}
  - lm_head
"""


def test_an_option_that_the_language_always_refuses_is_an_error(space):
    found = space(TEXT.replace("HEADS", "heads: {choose: [2, 4, 5]}"), elaborate=from_tree)
    with pytest.raises(SpecError) as error:
        check(found, Random(0), samples=60)
    (problem,) = error.value.problems
    assert problem.cause.startswith("the option 5 is never legal")
    assert "does not divide into 5 heads" in problem.hint
    assert problem.path == "graph[1].mixer.heads"


def test_a_space_that_the_language_refuses_has_no_member(space):
    found = space(TEXT.replace("HEADS", "heads: {choose: [5, 7]}"), elaborate=from_tree)
    with pytest.raises(SpecError, match="no member: 60 candidates were tried(.|\n)*does not divide into"):
        check(found, Random(0), samples=60)


def test_a_survey_tells_the_portion_that_elaborates(space):
    found = space(TEXT.replace("HEADS", "heads: {choose: [4, 128]}, position: rope"), elaborate=from_tree)
    result = Survey(
        found, Random(0), samples=100
    )  # heads of width 1 cannot be rotated, heads of width 0.5 do not exist
    assert 0.3 < result.accepted < 0.7
    assert [problem.path for problem in result.never] == ["graph[1].mixer.heads"]
