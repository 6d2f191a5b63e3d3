"""Numbers that move in training: what they are at each progress, who may have one, and what it changes in a spec."""

from __future__ import annotations

import copy
import math
import pickle
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from archspec.canonical import text
from archspec.diff import diff, verdict
from archspec.errors import SpecError
from archspec.fields import shape_of
from archspec.kind import REGISTRY
from archspec.moving import Course, Moving, again, course
from archspec.show import lines
from archspec.source import parse
from archspec.spec import Spec, load, loads
from spaces.space import Space

ROOT = Path(__file__).parents[2]


def read(written: str, *, whole: bool = False) -> Course:
    return course(parse(f"v: {written}")["v"], lambda container, key: container[key], whole=whole)


def spec(factor: str = "1.0", k: str = "2", drop: str = "0.0", rest: str = "") -> Spec:
    return loads(
        f"""archspec: 1
name: small
interface: {{kind: causal_lm, vocab: 32, length: 16}}
graph:
  - {{kind: token_embedding, width: 16}}
  - kind: residual
    factor: {factor}
    dropout: {drop}
    body: {{kind: mixture, experts: {{count: 4, body: {{kind: glu, hidden: 8}}}}, router: {{kind: top_k, k: {k}}}}}
{rest}  - lm_head
""",
        "small.yaml",
    )


RAMP = "{bind: step, from: 1, to: 4}"


@pytest.mark.parametrize(
    ("written", "values"),
    {
        "{bind: step, from: 2, to: 4}": {0: 2, 0.25: 2.5, 1: 4},
        "{bind: step, from: 1, to: 0, between: [0.2, 0.7]}": {0: 1, 0.2: 1, 0.45: 0.5, 0.7: 0, 1: 0},
        "{bind: step, from: 1, to: 0, shape: cosine}": {0: 1, 0.5: 0.5, 1 / 3: 0.75, 1: 0},
        "{bind: step, from: 8, to: 2, shape: exponential}": {0: 8, 0.5: 4, 1: 2},
        "{bind: step, from: -1, to: -4, shape: exponential}": {0.5: -2},
        "{bind: step, values: {0: 2, 0.4: 4, 0.8: 8}}": {0: 2, 0.39: 2, 0.4: 4, 0.79: 4, 0.8: 8, 1: 8},
        "{bind: step, from: 3, to: 3}": {0: 3, 0.5: 3, 1: 3},
        "{bind: step, range: [0, 1], default: 0.5}": {0: 0.5, 1: 0.5},
    }.items(),
)  # fmt: skip
def test_the_value_at_a_progress(written: str, values: dict[float, float]) -> None:
    assert {at: read(written).at(at) for at in values} == pytest.approx(values)


def test_a_whole_number_is_rounded_and_its_ends_are_what_is_said() -> None:
    ramp = read("{bind: step, from: 1, to: 8}", whole=True)
    values = [ramp.at(step / 700) for step in range(701)]
    assert set(map(type, values)) == {int} and values == sorted(values) and set(values) == set(range(1, 9))
    assert values[0] == 1 and values[-1] == 8 and ramp.ends == (1, 8)


def test_what_is_drawn_depends_on_seed_and_step_alone_and_is_even() -> None:
    few = read("{bind: step, choose: [1, 2, 4], default: 4}", whole=True)
    drawn = Counter(few.at(0.5, (0, step)) for step in range(3000))
    assert drawn.keys() == {1, 2, 4} and all(abs(count - 1000) < 150 for count in drawn.values())
    assert [few.at(0.1, (3, step)) for step in range(50)] == [few.at(0.9, (3, step)) for step in range(50)]
    assert [few.at(0, (0, step)) for step in range(50)] != [few.at(0, (1, step)) for step in range(50)]
    other = read("{bind: step, choose: [1, 2, 4], default: 4, seed: 1}", whole=True)
    assert [few.at(0, (0, step)) for step in range(50)] != [other.at(0, (0, step)) for step in range(50)]
    rates = [read("{bind: step, range: [0.1, 0.3], default: 0}").at(0, (0, step)) for step in range(3000)]
    assert 0.1 <= min(rates) < 0.11 and 0.29 < max(rates) < 0.3 and abs(sum(rates) / 3000 - 0.2) < 0.005
    logs = [read("{bind: step, range: [0.01, 1], log: true, default: 1}").at(0, (0, s)) for s in range(3000)]
    assert abs(sum(map(math.log10, logs)) / 3000 + 1) < 0.05
    counts = Counter(read("{bind: step, range: [2, 4], default: 4}", whole=True).at(0, (0, s)) for s in range(300))
    assert counts.keys() == {2, 3, 4}


def test_it_counts_as_what_it_ends_at_in_structure_and_not_in_full() -> None:
    plain, moving = spec(k="4", factor="0.5"), spec(k=RAMP, factor="{bind: step, from: 1, to: 0.5}")
    assert moving.structure == plain.structure and moving.full != plain.full
    assert moving.graph.digest("layout") != plain.graph.digest("layout")
    assert moving.final.full == loads(text(plain.canonical())).full
    assert spec(k="{bind: step, from: 2, to: 4}").full != spec(k=RAMP).full
    assert plain.final is plain and not plain.moving and list(moving.moving) == [
        "graph[1].factor", "graph[1].body.router.k",
    ]  # fmt: skip


def test_the_canonical_form_is_the_same_spec_and_its_numbers_can_be_fixed() -> None:
    moving = spec(
        k=RAMP, factor="{bind: step, range: [0, 2], default: 1}", drop="{bind: step, values: {0: 0.1, 0.5: 0}}"
    )
    again_ = loads(text(moving.canonical()))
    assert (again_.full, again_.structure) == (moving.full, moving.structure)
    assert again_.canonical() == moving.canonical()
    start = spec(k="1, normalize: true", drop="0.1")  # whether weights are normalised follows from the final k
    assert moving.at(0).structure == start.structure != moving.structure
    half = moving.at(0.5)
    assert not half.moving and half.graph.nodes[1].kind.factor == 1
    router = half.graph.nodes[1].bodies["body"].nodes[0].bodies["router"].nodes[0].kind
    assert router.k == 3 and router.normalize is True


def test_a_number_that_moves_survives_copies() -> None:
    kind = spec(factor="{bind: step, from: 1, to: 0}").graph.nodes[1].kind
    for other in (copy.deepcopy(kind), pickle.loads(pickle.dumps(kind))):
        assert isinstance(other.factor, Moving) and other.factor == kind.factor and other.factor != 0.0
        assert other.factor + 1 == 1.0


def test_parameters_rounds_and_sugar_hand_it_on() -> None:
    found = loads(
        """archspec: 1
name: small
interface: {kind: causal_lm, vocab: 32, length: 16}
blocks:
  layer:
    parameters: {drop: 0.0, last: 0.5}
    kind: transformer_layer
    mixer: {kind: attention, heads: 2}
    drop_path: drop
    factor: {each: [1.0, {bind: step, from: 1, to: last * 2 * (index + 1)}]}
graph:
  - {kind: token_embedding, width: 16}
  - {kind: repeat, times: 2, body: {kind: layer, drop: {bind: step, from: 0, to: 0.1}}}
  - lm_head
"""
    )
    rounds = [body.nodes[0].kind for body in found.graph.nodes[1].bodies.values()]
    assert [str(kind.drop_path) for kind in rounds] == ["0 → 0.1"] * 2
    assert [str(kind.factor) for kind in rounds] == ["1.0", "1 → 2"]


def test_an_extending_file_replaces_it_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text({**spec(factor="{bind: step, from: 1, to: 0}").canonical()}))
    (tmp_path / "b.yaml").write_text(
        "archspec: 1\nextends: a.yaml\nset: {'graph.residual.factor': {bind: step, values: {0: 1, 0.5: 0}}}\n"
    )
    assert str(load(tmp_path / "b.yaml").graph.nodes[1].kind.factor) == "1 at 0 → 0 at 0.5"


def test_show_and_diff_tell_how_it_moves() -> None:
    old, new = spec(), spec(k="{bind: step, from: 1, to: 2}")
    assert any("k 1 → 2" in line.says for line in lines(new))
    assert [str(change) for change in diff(old, new)] == ["residual.body.router: k 2 → 1 → 2"]
    assert verdict(old, new).startswith("same structure")


def test_a_choice_of_a_space_may_hold_it_and_it_a_choice() -> None:
    space = Space(
        parse(
            """archspace: 1
name: s
interface: {kind: causal_lm, vocab: 32, length: 16}
graph:
  - {kind: token_embedding, width: 16}
  - kind: residual
    factor:
      choose:
        - 1.0
        - {bind: step, from: 1, to: {choose: [0.5, 0.25]}}
        - {bind: step, choose: [1, 2], default: 1}
    body: {kind: glu, hidden: 8}
  - lm_head
"""
        )
    )
    assert str(space.cardinality()) == "4"
    drawn = [space.sample(Random(seed)).spec for seed in range(40)]
    assert len({member.full for member in drawn}) == 4 and len({bool(member.moving) for member in drawn}) == 2


WRONG = {
    "factor: {bind: step}": "it is not said how the number moves",
    "factor: {bind: step, form: 1, to: 2}": "it is not said how the number moves\n  did you mean from?",
    "factor: {bind: step, from: 1}": "it is not said where the number moves to",
    "factor: {from: 1, to: 2}": "a number that moves in training says bind: step",
    "factor: {bind: step, from: 1, to: 2, betwen: [0, 1]}": "did you mean between?",
    "factor: {bind: step, from: 1, to: 2, values: {0: 1}}": "a number that moves by from: has no 'values'",
    "factor: {bind: step, from: 1, to: 2, between: [0.5, 0.5]}": "between holds the progress at which",
    "factor: {bind: step, from: 1, to: 2, between: [0, 300]}": "300 is not a progress of training",
    "factor: {bind: step, from: 1, to: 0, shape: exponential}": "no number of times 1 is 0",
    "factor: {bind: step, from: 1, to: 2, shape: lineal}": "did you mean linear?",
    "factor: {bind: step, from: 1, to: 2, shape: []}": "no shape is called",
    "factor: {bind: step, values: {0.1: 1}}": "the progress starts at 0 and rises to at most 1",
    "factor: {bind: step, values: {0: 1, 2: 1}}": "the progress starts at 0 and rises to at most 1",
    "factor: {bind: step, values: {0: 1, late: 1}}": "'late' is not a progress of training",
    "factor: {bind: step, values: {0: one}}": "nothing here is called 'one'",
    "factor: {bind: step, range: [1, 2]}": "a number that is drawn in training has a value outside it",
    "factor: {bind: step, range: [2, 1], default: 1}": "2 to 1 is no range",
    "factor: {bind: step, range: [0, 1], log: true, default: 1}": "numbers are drawn by their logarithm",
    "factor: {bind: call, range: [1, 2]}": "bind: call is not implemented yet",
    "factor: {choose: [1, 2]}": "a choice belongs into a space",
    "dropout: {bind: step, from: 0, to: 1}": "1.0 is out of range",
    "place: {bind: step, from: 0, to: 1}": "place of residual cannot move in training\n  of residual, drop",
    "norm: {bind: step, choose: [layer_norm, rms_norm], default: rms_norm}": "only numbers move in training, not nodes",
    "body: {kind: glu, hidden: {bind: step, from: 8, to: 16}}": "of glu cannot move in training\n  of glu, dropout may",
    "body: {kind: attention, heads: {bind: step, from: 1, to: 2}}": "heads of attention cannot move in training",
}


@pytest.mark.parametrize("written", WRONG)
def test_what_is_wrong_is_told_at_its_place_once(written: str) -> None:
    key = written.partition(":")[0]
    body = "" if key == "body" else "    body: {kind: glu, hidden: 8}\n"
    with pytest.raises(SpecError) as error:
        spec(rest=f"  - kind: residual\n    {written}\n{body}")
    (problem,) = error.value.problems
    assert WRONG[written] in "\n  ".join(filter(None, (problem.cause, problem.hint)))
    assert problem.mark is not None and problem.mark.line == 11 and problem.path.startswith(f"graph[2].{key}")


@pytest.mark.parametrize(
    ("k", "cause"),
    {
        "{bind: step, from: 8, to: 2}": "8 of 4 experts",
        "{bind: step, from: 0, to: 2}": "0 is out of range",
        "{bind: step, from: 1.5, to: 2}": "1.5 is not a whole number",
    }.items(),
)
def test_every_value_that_it_takes_must_be_right(k: str, cause: str) -> None:
    with pytest.raises(SpecError, match=cause):
        spec(k=k)


def test_a_dim_cannot_move_and_no_other_field_reads_it() -> None:
    with pytest.raises(SpecError, match="a dim is a number or an expression"):
        loads(
            "archspec: 1\ndims: {a: {bind: step, from: 1, to: 2}}\ninterface: {kind: causal_lm, vocab: 8, length: 8}"
            "\ngraph: [{kind: token_embedding, width: 8}, lm_head]\n"
        )
    with pytest.raises(SpecError, match="nothing here is called 'factor'"):
        spec(factor="{bind: step, from: 1, to: 2}\n    skip: factor * 2")


@pytest.mark.parametrize("kind", [kind for kind in REGISTRY.values() if kind.moves], ids=lambda kind: kind.name_)
def test_fields_that_may_move_are_single_numbers(kind: type) -> None:
    for name in kind.moves:  # type: ignore[attr-defined]
        assert shape_of(kind, name).numeric and name not in kind.slots  # type: ignore[attr-defined]


def test_a_course_is_read_again_from_what_it_says() -> None:
    for written in ("{bind: step, from: 1, to: 8}", "{bind: step, range: [1, 3], default: 2, seed: 4}"):
        for whole in (True, False):
            found = read(written, whole=whole)
            assert again(parse(text(found.plain))) == found
