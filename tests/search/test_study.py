"""Study files: what they may say, and what is refused where."""

from contextlib import closing
from pathlib import Path

import pytest

from archspec.errors import SpecError
from archspec.spec import load as load_spec
from search.cost import price
from search.objectives import Latency, Priced
from search.recipe import Recipe
from search.session import prices
from search.study import differences, load, schema


def test_a_study_is_read_with_its_defaults(study_file):
    study = load(study_file(constraints="[{kind: flops, at_most: 1e6}]"))
    assert study.name == "tiny" and study.sampler == "random" and study.seeds == 1 and study.storage == "sqlite"
    assert [objective.name for objective in study.objectives] == ["validation_loss", "parameters"]
    assert [str(bound) for bound in study.bounds] == ["flops at most 1e+06"]
    assert study.recipe.steps == 4 and study.data.kind_name == "digits"


def test_names_of_objectives_tell_them_apart(study_file):
    said = "[latency, {kind: latency, measured: true}, {kind: latency, device: l4, batch: 8}]"
    assert [o.name for o in load(study_file(objectives=said)).objectives] == [
        "latency",
        "latency (measured)",
        "latency (device l4, batch 8)",
    ]


@pytest.mark.parametrize(
    ("lines", "place", "cause", "hint"),
    [
        ({"archstudy": "2"}, "archstudy", "format version 2", "newer version"),
        ({"smapler": "tpe"}, "10:1  smapler", "there is no field 'smapler' here", "did you mean sampler"),
        ({"sampler": "tpa"}, "9:10  sampler", "cannot be 'tpa'", "'tpe'"),
        ({"trials": "0"}, "9:9  trials", "greater than or equal to 1", ""),
        ({"trials": "many"}, "9:9  trials", "a valid integer", ""),
        ({"name": "a/b"}, "9:7  name", "not fit for a folder", ""),
        (
            {"train": "{steps: 4, lerning_rate: 1}"},
            "9:19  train.lerning_rate",
            "no field",
            "did you mean learning_rate",
        ),
        ({"train": "{optimizer: {betas: [0.9, 2]}}"}, "train.optimizer.betas", "less than 1", ""),
        ({"fidelities": "{least: 9}"}, "fidelities", "the whole training 4", "try least: 1"),
        ({"fidelities": "{least: 2, reducton: 2}"}, "fidelities.reducton", "no field", "did you mean reduction"),
        ({"sampler": "cmaes"}, "sampler", "searches for one objective, there are 2", "sampler: frontier"),
        (
            {"constraints": "[{kind: flops, at_least: 1e6}, {kind: flops, at_most: 1e5}]"},
            "constraints[1]",
            "contradicts flops at least 1e+06",
            "leave one out",
        ),
        ({"train": "fast"}, "train", "should be a mapping", ""),
        ({"data": "{kind: digit}"}, "9:14  data.kind", "no data called 'digit'", "did you mean digits"),
        ({"data": "{kind: text, pth: x}"}, "9:20  data.pth", "no field 'pth'", "did you mean path"),
        ({"data": "7"}, "data", "found 7", ""),
        ({"objectives": "[validation_los]"}, "9:14  objectives[0]", "validation_los", "did you mean validation_loss"),
        ({"objectives": "[]"}, "objectives", "at least 1 item", ""),
        ({"objectives": "[flops, flops]"}, "objectives[1]", "stands twice", ""),
        ({"objectives": "[{kind: latency, measured: true, device: l4}]"}, "objectives[0]", "not measured", ""),
        ({"objectives": "[{kind: latency, measured: true, phase: step}]"}, "objectives[0]", "leave measured out", ""),
        ({"objectives": "[{kind: latency, context: 5}]"}, "objectives[0]", "phase: decode", ""),
        (
            {"constraints": "[{kind: validation_loss, at_most: 1}]"},
            "constraints[0]",
            "only after training",
            "parameters",
        ),
        ({"constraints": "[{kind: latency, measured: true, at_most: 1}]"}, "constraints[0]", "after", "predicted"),
        ({"constraints": "[{kind: flops}]"}, "10:15  constraints[0]", "needs at_most or at_least", ""),
        ({"constraints": "[{kind: flops, at_most: big}]"}, "constraints[0].at_most", "should be a number", ""),
        ({"space": "nowhere.yaml"}, "9:8  space", "there is no file", ""),
        ({"space": "language_modle"}, "9:8  space", "neither in the library", "did you mean language_model"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(study_file, lines, place, cause, hint):
    with pytest.raises(SpecError) as caught:
        load(study_file(**lines))
    said = str(caught.value)
    assert len(caught.value.problems) == 1, said
    assert "study.yaml:" in said and place in said and cause in said and hint in said


def test_independent_errors_are_told_at_once(study_file):
    with pytest.raises(SpecError) as caught:
        load(study_file(sampler="x", data="y", train="{z: 1}", objectives="[w]", space="v"))
    assert len(caught.value.problems) == 5


def test_missing_parts_are_named(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("archstudy: 1\n")
    with pytest.raises(SpecError) as caught:
        load(path)
    assert [p.cause for p in caught.value.problems] == [
        f"{n} is missing" for n in ("name", "space", "data", "objectives")
    ]


def test_identity_follows_everything_but_the_budget(study_file):
    base = load(study_file()).identity()
    assert load(study_file(trials="99", workers="2")).identity() == base
    for lines, said in [
        ({"seed": "1"}, "seed was 0, is 1"),
        ({"train": "{steps: 5, batch: 8}"}, "train.steps was 4, is 5"),
        (
            {"objectives": "[validation_loss, flops]"},
            "objectives was ['validation_loss', 'parameters'], is ['validation_loss', 'flops']",
        ),
        ({"constraints": "[{kind: flops, at_most: 5}]"}, "constraints was [], is ['flops at most 5']"),
    ]:
        assert said in differences(base, load(study_file(**lines)).identity())
    path = study_file()
    space = path.parent / "space.yaml"
    space.write_text(space.read_text().replace("[8, 12, 16]", "[8, 12, 20]"))
    assert differences(base, load(path).identity()) == ["space.dims.width.choose was [8, 12, 16], is [8, 12, 20]"]


def test_the_schema_knows_every_kind():
    found = schema()
    said = str(found)
    assert all(
        name in said for name in ("megabytes", "at_most", "validation_accuracy", "cache", "repeats", "learning_rate")
    )
    assert found["additionalProperties"] is False and "data" in found["required"]
    references = {part.split("'")[0] for part in said.split("'$ref': '#/$defs/")[1:]}
    assert references <= set(found["$defs"])


def test_latency_of_a_phase() -> None:
    spec = load_spec(Path(__file__).parents[2] / "examples" / "tiny.yaml")
    priced = Priced(spec, Recipe(), prices)
    step, decode = (
        Latency(kind="latency", device="l4", **fields)
        for fields in ({"phase": "step"}, {"phase": "decode", "context": 100})
    )
    length = priced.recipe.length
    assert step.before(priced) == price(spec, length=length, device="l4", phase="step").latency_ms
    assert decode.before(priced) == price(spec, length=length, device="l4", phase="decode", context=100).latency_ms


def test_frozen_choices_are_of_the_study(study_file, tmp_path):
    from search.session import Asked, OpenStudy

    file = study_file(freeze="{dims.width: 12}", trials="4")
    study = load(file, freeze={"graph[1].norm": "rms_norm"})
    assert study.freeze == {"dims.width": 12, "graph[1].norm": "rms_norm"}
    seen = []
    with closing(OpenStudy(study, tmp_path / "out")) as opened:
        while isinstance(asked := opened.ask(), Asked):
            seen.append(asked.proposal.spec.graph.nodes[0].output.width)
            opened.tell(asked, [1.0, 1.0])
    assert seen == [12, 12]  # relu and gelu are left
    with pytest.raises(SpecError, match="freeze"), closing(OpenStudy(load(file), tmp_path / "out")):
        pass
    with pytest.raises(SpecError, match="no choice has this path") as error:
        load(study_file(freeze="{dims.widht: 12}")).members()
    assert error.value.problems[0].mark is not None and "dims.width" in (error.value.problems[0].hint or "")
