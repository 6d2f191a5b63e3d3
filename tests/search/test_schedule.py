"""Candidates are trained in rungs and with several seeds; what is on record tells what to do next."""

from __future__ import annotations

from contextlib import closing
from itertools import count

import pytest
from optuna.trial import TrialState

from search.front import front, over_seeds
from search.session import Asked, OpenStudy
from search.storage import candidate, counted, valid
from search.study import load


def loss(asked: Asked) -> float:
    """More parameters are better, longer training is, and seeds differ."""
    proposal = asked.proposal
    steps = proposal.stage.until or proposal.stage.recipe.steps
    size = proposal.priced.price(batch=1, length=None, dtype="float32", device="a10")["parameters"]["total"]
    unlucky = int(proposal.spec.full, 16) % 2
    return 3 - size / 1e5 - steps / 100 + 0.001 * proposal.seed + unlucky


def run(study: OpenStudy, stop: int | None = None) -> None:
    for number in count():
        if number == stop or not isinstance(asked := study.ask(), Asked):
            return
        size = asked.proposal.priced.price(batch=1, length=None, dtype="float32", device="a10")["parameters"]["total"]
        study.tell(asked, [loss(asked), size])


LINES = {"train": "{steps: 8, batch: 4}", "fidelities": "{least: 2, reduction: 2}", "trials": "6", "sampler": "random"}


def test_few_of_many_reach_the_last_rung(study_file, tmp_path):
    with closing(OpenStudy(load(study_file(**LINES)), tmp_path / "out")) as study:
        run(study)
        trials = study.record.trials()
    by_rung = [[t for t in trials if candidate(t)["rung"] == rung] for rung in range(3)]
    assert [len(some) for some in by_rung][0] == 6 > len(by_rung[1]) >= 3 > len(by_rung[2]) >= 1
    assert {t.state for t in by_rung[0] + by_rung[1]} == {TrialState.PRUNED}
    assert {t.state for t in by_rung[2]} == {TrialState.COMPLETE}
    assert len(counted(trials)) == 6 and len({candidate(t)["key"] for t in trials}) == len(trials)


def test_a_study_that_was_stopped_goes_on_as_it_would_have(study_file, tmp_path):
    def rows(stops: list[int | None], name: str) -> list[tuple[str, int, int]]:
        for stop in stops:
            with closing(OpenStudy(load(study_file(**LINES)), tmp_path / name)) as study:
                run(study, stop)
                found = [
                    (candidate(t)["hash"], candidate(t)["rung"], candidate(t)["seed"]) for t in study.record.trials()
                ]
        return found

    assert rows([3, 1, 2, None], "stopped") == rows([None], "whole")


def test_a_promotion_that_was_given_back_is_made_again(study_file, tmp_path):
    with closing(OpenStudy(load(study_file(**LINES)), tmp_path / "out")) as study:
        while not (asked := study.ask()).proposal.further:
            study.tell(asked, [loss(asked), 1.0])
        study.record.fail(asked.trial, "killed", again=True)
        again = study.ask()
        assert again.proposal.key == asked.proposal.key and again.proposal.further
        study.tell(again, [1.0, 1.0])
        run(study)
        stand = valid(study.record.trials())
        assert len({candidate(t)["key"] for t in stand}) == len(stand)


def test_finalists_get_seeds_and_count_once(study_file, tmp_path):
    lines = {"train": "{steps: 8, batch: 4}", "trials": "8", "seeds": "3", "sampler": "random"}
    with closing(OpenStudy(load(study_file(**lines)), tmp_path / "out")) as study:
        run(study)
        trials = study.record.trials()
    first = {candidate(t)["hash"]: t.values for t in trials if candidate(t)["seed"] == 0}
    beaten = {a for a, (loss, size) in first.items() if any(x < loss - 0.1 and y <= size for x, y in first.values())}
    repeated = [t for t in trials if candidate(t)["seed"] > 0]
    assert len(counted(trials)) == len(over_seeds(trials)) == len(first) == 8
    assert beaten and repeated and not beaten & {candidate(t)["hash"] for t in repeated}
    assert {candidate(t)["hash"] for t in front(trials, ["minimize", "minimize"])} <= {*first} - beaten
    one = candidate(repeated[0])["hash"]
    (mean,) = (t for t in over_seeds(trials) if candidate(t)["hash"] == one)
    seeds = [t.values[0] for t in trials if candidate(t)["hash"] == one]
    assert mean.values[0] == pytest.approx(sum(seeds) / len(seeds)) and len(seeds) > 1


def test_rungs_are_trained_on_not_anew(study_file, tmp_path):
    """A real run: a promoted candidate ends with the weights that it has when trained at once."""
    lines = {"train": "{steps: 8, batch: 4}", "fidelities": "{least: 4, reduction: 2}", "trials": "2", "workers": "0"}
    with closing(OpenStudy(load(study_file(**lines)), tmp_path / "rungs")) as study:
        while isinstance(asked := study.ask(), Asked):
            study.train(asked)
        (last,) = (t for t in study.record.trials() if t.state == TrialState.COMPLETE)
        first = next(t for t in study.record.trials() if candidate(t)["hash"] == candidate(last)["hash"])
    assert first.user_attrs["result"]["steps"] == 4 and last.user_attrs["result"]["steps"] == 8
    whole = {name: line for name, line in lines.items() if name != "fidelities"}
    with closing(OpenStudy(load(study_file(**whole)), tmp_path / "whole")) as study:
        while isinstance(asked := study.ask(), Asked):
            study.train(asked)
        (same,) = (t for t in study.record.trials() if candidate(t)["hash"] == candidate(last)["hash"])
    assert same.values == last.values
