"""Where candidates come from: bounds are kept, nothing is tried twice, better ones are found than by chance."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest

from archspec.errors import SpecError
from search.figures import Figures
from search.session import Asked, OpenStudy
from search.sources import Bounded
from search.storage import candidate, valid
from search.study import load
from spaces import space as spaces
from spaces.encoding import decode, sample_encoded

STUDY = """
archstudy: 1
name: sizes
space: hybrid_attention_convolution
data: {kind: text}
train: {steps: 4, batch: 2, length: 16}
objectives: [validation_loss, flops]
constraints: [{kind: parameters, at_most: 1.5e6}]
trials: 24
workers: 0
"""


def study_of(tmp_path, sampler: str, **lines: str):
    text = STUDY + f"sampler: {sampler}\n"
    for name, value in lines.items():
        text = "\n".join(f"{name}: {value}" if line.startswith(f"{name}:") else line for line in text.splitlines())
    path = tmp_path / f"{sampler}.yaml"
    path.write_text(text)
    return load(path)


def searched(study: OpenStudy) -> list[tuple[float, float]]:
    """Points of a study whose loss falls with the layers that are no convolutions."""
    points = []
    while isinstance(asked := study.ask(), Asked):
        wide = sum(
            value != "depthwise_convolution" for path, value in asked.proposal.params.items() if path.endswith("mixer")
        )
        flops = study.study.objectives[1].before(asked.proposal.priced)
        points.append((5 - 0.3 * wide, flops))
        study.tell(asked, list(points[-1]))
    return points


@pytest.mark.parametrize("sampler", ["frontier", "evolution", "local", "tpe"])
def test_bounds_are_kept_and_nothing_is_tried_twice(tmp_path, sampler):
    with closing(OpenStudy(study_of(tmp_path, sampler, trials="14"), tmp_path / sampler)) as study:
        searched(study)
        hashes = [candidate(trial)["hash"] for trial in study.record.trials()]
        sizes = [study.space.candidate(trial.params).spec for trial in study.record.trials()]
    assert len(set(hashes)) == 14
    from search.cost import price

    assert max(price(spec, length=16).parameters for spec in sizes) <= 1.5e6


@pytest.mark.parametrize("lost", [False, True])
def test_what_is_proposed_is_a_function_of_seed_and_record(tmp_path, lost):
    def run(name: str, *parts: int) -> list[str]:
        for part in parts:
            with closing(OpenStudy(study_of(tmp_path, "frontier", trials="20"), tmp_path / name)) as study:
                for _ in range(part):
                    asked = study.ask()
                    study.tell(asked, [float(len(asked.proposal.params)), 1.0])
                if lost and len(parts) > 1:  # it is taken up again, and the batch goes on as if nothing had been
                    study.ask()
                found = [candidate(trial)["hash"] for trial in valid(study.record.trials())]
        return found[: sum(parts)]

    assert run("whole", 18) == run("parts", 5, 4, 6, 3)  # within batches of 4, and between them


def test_a_batch_goes_by_what_was_known_when_it_began(tmp_path):
    with closing(OpenStudy(study_of(tmp_path, "frontier", trials="20"), tmp_path / "out")) as study:
        models = []
        for number in range(17):
            asked = study.ask()
            models.append(study.proposer.sources.frontier)
            study.tell(asked, [float(number), 1.0])
    assert [len(model.vectors) for model in models] == [number - number % 4 for number in range(17)]
    assert len({id(model) for model in models}) == 5


def test_a_small_space_is_searched_to_its_last_member(study_file, tmp_path):
    for sampler in ("grid", "frontier"):
        with closing(OpenStudy(load(study_file(sampler=sampler, trials="500")), tmp_path / sampler)) as study:
            members = {one.spec.full for one in study.space.members()}
            while isinstance(asked := study.ask(), Asked):
                study.tell(asked, [1.0, 1.0])
            tried = [candidate(trial)["hash"] for trial in study.record.trials()]
        assert sorted(tried) == sorted(members)


def test_figures_of_vectors_are_those_of_specs(tmp_path):
    study = study_of(tmp_path, "frontier", objectives="[validation_loss, macs, {kind: latency, device: l4}]")
    space = spaces.load("hybrid_attention_convolution")
    figures = Figures(space, study.recipe, study.objectives, study.bounds)
    vectors = sample_encoded(space, np.random.default_rng(1), 20)
    cheap, allowed = figures.cheap(vectors), figures.allowed(vectors)
    assert set(cheap) == {"parameters", "macs", "latency (device l4)"} and 0 < allowed.sum() < 20
    from search.objectives import Priced
    from search.session import prices

    for number, vector in enumerate(vectors):
        priced = Priced(decode(space, vector).spec, study.recipe, prices)
        assert cheap["macs"][number] == study.objectives[1].before(priced)
        assert cheap["latency (device l4)"][number] == pytest.approx(study.objectives[2].before(priced))
        assert allowed[number] == study.bounds[0].allows(study.bounds[0].objective.before(priced))
    (refused,) = figures.refusals(vectors).items()
    assert refused == ("parameters at most 1.5e+06", 20 - allowed.sum())


def test_rare_members_within_the_bounds_are_found(tmp_path):
    study = study_of(tmp_path, "frontier", constraints="[{kind: parameters, at_most: 1.1e5}]")
    space = spaces.load("hybrid_attention_convolution")
    figures = Figures(space, study.recipe, study.objectives, study.bounds)
    drawn = sample_encoded(space, np.random.default_rng(0), 2000)
    assert figures.allowed(drawn).mean() < 0.01
    members = Bounded(space, ["validation_loss", "flops"], figures)
    assert members.feasible(members.draw(np.random.default_rng(0), 200)).sum() >= 10


def test_a_space_without_a_feasible_member_is_told(tmp_path):
    study = study_of(tmp_path, "frontier", constraints="[{kind: parameters, at_most: 100}]")
    with closing(OpenStudy(study, tmp_path / "none")) as opened, pytest.raises(SpecError) as caught:
        opened.ask()
    assert "is feasible" in str(caught.value) and "parameters at most 100" in str(caught.value)


def test_what_was_foretold_stands_on_record_and_in_the_report(tmp_path):
    from search import report

    lines = {"trials": "16", "train": "{steps: 8, batch: 2, length: 16}\nfidelities: {least: 4, reduction: 2}"}
    with closing(OpenStudy(study_of(tmp_path, "frontier", **lines), tmp_path / "out")) as study:
        while isinstance(asked := study.ask(), Asked):
            of, steps = asked.proposal.priced, asked.proposal.stage.until or 8
            flops = study.study.objectives[1].before(of)
            values = {"validation_loss": 4 - 0.1 * np.log(flops) - steps / 10, "flops": flops}
            study.tell(asked, list(values.values()), {"steps": steps, "values": values})
        found = report.build(study.record)
    rows = {row["trial"]: row for row in found["all"]}
    told = [row["predicted"]["validation_loss"] for row in found["all"] if row["predicted"]]
    assert len(told) > 4 and all(low < middle < high for middle, low, high in told)
    late = [row for row in found["all"] if row["predicted"] and row["state"] == "complete"]
    for row in late:  # the loss is a smooth function of what is known
        assert row["predicted"]["validation_loss"][0] == pytest.approx(row["values"]["validation_loss"], abs=0.1)
        assert [steps for steps, _ in row["rungs"]] == [4, 8]
        assert row["rungs"][1][1] == row["values"]["validation_loss"]
    assert late and set(found["surrogates"]["validation_loss"]) == {"form", "rank", "rank_of_parameters"}
    survey = found["survey"]
    assert survey["drawn"] == 1024 and list(survey["refused"]) == ["parameters at most 1.5e+06"]
    drawn = study_bounds(study, survey["drawn"])
    assert abs(survey["refused"]["parameters at most 1.5e+06"] / 1024 - drawn) < 0.08
    assert "random members keep the constraints" in report.text(found) and "on trials left out" in report.text(found)
    assert rows.keys() == set(range(len(rows)))


def study_bounds(study: OpenStudy, count: int) -> float:
    """The share of other random members that are too large, each priced by itself."""
    from random import Random

    from search.cost import price

    members = [study.space.sample(Random(seed)).spec for seed in range(count // 4)]
    return sum(price(spec, length=16).parameters > 1.5e6 for spec in members) / len(members)


def test_nobody_looks_beyond_what_is_the_worst(tmp_path):
    def flops(name: str, objective: str) -> list[float]:
        study = study_of(tmp_path, "frontier", objectives=f"[validation_loss, {objective}]", trials="30")
        with closing(OpenStudy(study, tmp_path / name)) as opened:
            return [point[1] for point in searched(opened)][-12:]

    free, held = flops("free", "flops"), flops("held", "{kind: flops, worst: 6e6}")
    assert max(held) <= 6e6 < max(free)


def test_a_constraint_has_no_worst(tmp_path):
    with pytest.raises(SpecError, match="worst is of an objective"):
        study_of(tmp_path, "frontier", constraints="[{kind: parameters, at_most: 1.5e6, worst: 1e6}]")
