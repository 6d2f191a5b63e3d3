"""Seeds of a candidate are trained together where that is faster, and come out as they would alone."""

from __future__ import annotations

from contextlib import closing

import pytest
from optuna.trial import TrialState

from search import companions, report
from search.session import Asked, OpenStudy
from search.storage import candidate
from search.study import load

LINES = {"train": "{steps: 8, batch: 8}", "trials": "3", "seeds": "4"}


@pytest.fixture
def fast(monkeypatch):
    """Together is taken for faster, whatever this computer measures."""
    monkeypatch.setattr(companions, "STEPS", 1)
    monkeypatch.setattr(companions, "faster", lambda *_: 2.0)


def run(file, folder):
    with closing(OpenStudy(load(file), folder)) as study:
        while isinstance(asked := study.ask(), Asked):
            study.train(asked)
        return study.record.trials(), report.build(study.record)


def losses(trials):
    return {(candidate(t)["hash"], candidate(t)["seed"]): t.values[0] for t in trials}


def test_seeds_trained_together_are_those_trained_alone(study_file, tmp_path, fast, monkeypatch):
    trials, found = run(study_file(**LINES), tmp_path / "together")
    monkeypatch.setattr(companions, "FASTER", 3.0)
    others, plain = run(study_file(**LINES), tmp_path / "alone")
    both = losses(trials).keys() & losses(others).keys()
    assert {seed for _, seed in both} >= {0, 1}
    assert {key: losses(trials)[key] for key in both} == pytest.approx({key: losses(others)[key] for key in both}, 1e-4)
    several = [t for t in trials if "together" in t.user_attrs["result"]]
    assert len(several) % 3 == 0 and all(candidate(t)["seed"] > 0 for t in several)
    assert all(t.user_attrs["result"]["together"] == {"count": 3, "times_as_fast": 2.0} for t in several)
    assert found["together"]["evaluations"] == len(several) and 0 < found["together"]["share"] < 1
    assert "trained together with others, 2 times as fast" in report.text(found)
    assert plain["together"] is None


def test_what_is_interrupted_is_given_back_whole(study_file, tmp_path, fast, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    file = study_file(**LINES)
    with closing(OpenStudy(load(file), tmp_path / "out")) as study:
        monkeypatch.setattr(companions, "train_together", interrupted)
        with pytest.raises(KeyboardInterrupt):
            while isinstance(asked := study.ask(), Asked):
                study.train(asked)
        failed = [t for t in study.record.trials() if t.state == TrialState.FAIL]
        assert len(failed) == 3 and all(t.user_attrs["again"] for t in failed)
    monkeypatch.undo()
    trials, _ = run(file, tmp_path / "out")
    done = [candidate(t)["key"] for t in trials if t.state == TrialState.COMPLETE]
    assert len(done) == len(set(done)) and {candidate(t)["key"] for t in failed} <= set(done)


def test_what_fails_together_is_trained_alone(study_file, tmp_path, fast, monkeypatch):
    def fails(*args, **kwargs):
        raise RuntimeError("vmap has no form of this")

    monkeypatch.setattr(companions, "train_together", fails)
    trials, found = run(study_file(**LINES), tmp_path / "out")
    assert {t.state for t in trials} == {TrialState.COMPLETE} and found["together"] is None
    assert len({candidate(t)["seed"] for t in trials}) == 4
