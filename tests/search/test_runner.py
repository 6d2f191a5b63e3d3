"""Running studies: after any death they go on as if they were never interrupted, and nothing is trained twice."""

import json
import resource
import signal
import time
from collections import Counter

import pytest
from optuna.trial import TrialState

from archspec.errors import SpecError
from search import memory, report, session
from search.durable import NotSaved
from search.outcome import TrainingFailed
from search.runner import Interrupted, run
from search.storage import Record, candidate
from search.study import load
from tests.search.studies import found, go, trials


def test_a_study_leaves_everything_on_the_disk(study_file, tmp_path):
    folder = tmp_path / "run"
    outcome = run(load(study_file()), out=folder, quiet=True)
    assert outcome.exhausted is None
    rows = trials(folder)
    assert [trial.state for trial in rows] == [TrialState.COMPLETE] * 3
    for trial in rows:
        place = folder / "trials" / candidate(trial)["hash"][:16]
        assert sorted(path.name for path in place.iterdir()) == ["result.json", "spec.yaml", "weights.safetensors"]
        stored = json.loads((place / "result.json").read_text())
        assert list(stored["values"].values()) == trial.values and len(stored["training"]["losses"]) == 4
    assert not list((folder / "workers").glob("[0-9a-f]" * 12))
    found_report = report.read(folder)
    assert len(list((folder / "pareto").iterdir())) == len(found_report["front"]) > 0


def test_a_finished_study_is_not_run_again_and_goes_on_when_trials_are_raised(study_file, tmp_path):
    folder = tmp_path / "run"
    run(load(study_file()), out=folder, quiet=True)
    first = found(folder)
    run(load(study_file()), out=folder, quiet=True)
    assert found(folder) == first
    run(load(study_file(trials="5")), out=folder, quiet=True)
    assert found(folder)[:3] == first and len(found(folder)) == 5


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2", "nsga3", "gp", "qmc"])
def test_a_study_that_was_cut_in_two_equals_one_that_was_not(study_file, tmp_path, sampler):
    lines = {"sampler": sampler, "train": "{steps: 1, batch: 4, validation_batches: 1}"}
    run(load(study_file(**lines, trials="12" if sampler == "tpe" else "6")), out=tmp_path / "whole", quiet=True)
    run(load(study_file(**lines, trials="4")), out=tmp_path / "parts", quiet=True)
    run(load(study_file(**lines, trials="12" if sampler == "tpe" else "6")), out=tmp_path / "parts", quiet=True)
    assert found(tmp_path / "parts") == found(tmp_path / "whole")


def test_no_candidate_is_trained_twice_and_an_exhausted_space_ends_the_study(study_file, tmp_path):
    study = load(study_file(trials="50", sampler="tpe", train="{steps: 1, batch: 4}"))
    outcome = run(study, out=tmp_path / "run", quiet=True)
    rows = found(tmp_path / "run")
    assert len(rows) == 12 and len({json.dumps(params, sort_keys=True) for params, _ in rows}) == 12
    assert outcome.exhausted is not None and "tried before" in str(outcome.exhausted)
    assert "tried before" in report.read(tmp_path / "run")["exhausted"]


def test_constraints_refuse_before_a_trial_exists(study_file, tmp_path):
    study = load(study_file(constraints="[{kind: parameters, at_most: 1000}]"))
    run(study, out=tmp_path / "run", quiet=True)
    rows = trials(tmp_path / "run")
    assert len(rows) == 3 and all(row.values[1] <= 1000 for row in rows)
    assert sum(candidate(row)["refused"].get("parameters at most 1,000", 0) for row in rows) > 0
    found_report = report.read(tmp_path / "run")
    assert found_report["acceptance"] == 3 / found_report["draws"] < 1


def test_a_study_without_a_feasible_candidate_tells_what_refused_them(study_file, tmp_path):
    study = load(study_file(constraints="[{kind: parameters, at_most: 10}, {kind: flops, at_least: 1}]"))
    with pytest.raises(SpecError, match="1,000 were tried; 1,000 refused by: parameters at most 10") as caught:
        run(study, out=tmp_path / "run", quiet=True)
    assert caught.value.problems[0].mark.line == 10
    assert trials(tmp_path / "run") == []


@pytest.mark.parametrize(
    ("lines", "said"),
    [({"seed": "3"}, "seed was 0, is 3"), ({"train": "{steps: 5, batch: 8}"}, "train.steps was 4, is 5")],
)
def test_a_changed_study_is_refused_and_can_start_afresh(study_file, tmp_path, lines, said):
    folder = tmp_path / "run"
    run(load(study_file()), out=folder, quiet=True)
    before = found(folder)
    with pytest.raises(SpecError, match=said) as caught:
        run(load(study_file(**lines)), out=folder, quiet=True)
    assert "new name" in str(caught.value) and "--fresh" in str(caught.value)
    assert found(folder) == before
    run(load(study_file(**lines)), out=folder, fresh=True, quiet=True)
    assert found(tmp_path / "run.1") == before != found(folder)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("no such kernel"), "RuntimeError: no such kernel"),
        (TrainingFailed("the loss is nan at step 3"), "the loss is nan at step 3"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_a_failing_candidate_is_recorded_and_the_study_goes_on(study_file, tmp_path, monkeypatch, error, reason):
    whole, calls = session.evaluate, []

    def failing(*arguments, **named):
        calls.append(1)
        if len(calls) == 2:
            raise error
        return whole(*arguments, **named)

    monkeypatch.setattr(session, "evaluate", failing)
    run(load(study_file()), out=tmp_path / "run", quiet=True)
    rows = trials(tmp_path / "run")
    assert [row.state.name for row in rows] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert rows[1].user_attrs["reason"].startswith(reason)
    assert f"1 failed: {rows[1].user_attrs['reason']}" in report.text(report.read(tmp_path / "run"))


def test_a_candidate_that_needs_more_memory_than_there_is_fails_by_name(study_file, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda device: 100_000)
    run(load(study_file(train="{steps: 1, batch: 100000}", trials="1")), out=tmp_path / "run", quiet=True)
    (row,) = trials(tmp_path / "run")
    assert "training it in batches of 100000 needs" in row.user_attrs["reason"]
    assert "100 kB are free" in row.user_attrs["reason"]


def test_ctrl_c_leaves_a_study_that_goes_on(study_file, tmp_path, monkeypatch):
    file = study_file(train="{steps: 6, batch: 8}", trials="4")
    run(load(file), out=tmp_path / "whole", quiet=True)
    whole, calls = session.evaluate, []

    def interrupted(*arguments, **named):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(*arguments, **named)

    monkeypatch.setattr(session, "evaluate", interrupted)
    with pytest.raises(Interrupted, match="same command again"):
        run(load(file), out=tmp_path / "run", quiet=True)
    run(load(file), out=tmp_path / "run", quiet=True)
    assert found(tmp_path / "run") == found(tmp_path / "whole")
    assert [row.user_attrs.get("reason") for row in trials(tmp_path / "run")] == [None, "interrupted", None, None, None]


@pytest.mark.parametrize("moment", ["session.evaluate", "storage.Record.finish"])
def test_kill_9_loses_at_most_the_running_trial(study_file, tmp_path, moment):
    file = study_file(trials="4")
    run(load(file), out=tmp_path / "whole", quiet=True)
    kill = f"""
        kept, calls = {moment}, []
        def die(*arguments, **named):
            calls.append(1)
            if len(calls) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return kept(*arguments, **named)
        {moment} = die
    """
    status, _ = go(file, tmp_path / "run", kill)
    assert status == -signal.SIGKILL
    before = Counter(path.stat().st_mtime_ns for path in (tmp_path / "run").glob("trials/*/weights.safetensors"))
    run(load(file), out=tmp_path / "run", quiet=True)
    assert found(tmp_path / "run") == found(tmp_path / "whole")
    after = Counter(path.stat().st_mtime_ns for path in (tmp_path / "run").glob("trials/*/weights.safetensors"))
    assert sum(before.values()) == (2 if "finish" in moment else 1) and before <= after


def test_a_candidate_that_always_kills_its_process_is_given_up(study_file, tmp_path):
    study = load(study_file(trials="1"))
    for _ in range(3):
        opened = session.OpenStudy(study, tmp_path / "run")
        assert isinstance(opened.ask(), session.Asked)
        opened.close()  # without a word of the trial: so it looks when a process dies
    run(study, out=tmp_path / "run", quiet=True)
    rows = trials(tmp_path / "run")
    assert [row.state.name for row in rows] == ["FAIL"] * 3
    assert rows[2].user_attrs["reason"] == "the process died while it trained this, for the 3rd time"


def test_the_same_command_twice_shares_a_study_and_ctrl_c_of_one_spares_the_other(study_file, tmp_path):
    file, gate = study_file(trials="6", train="{steps: 1, batch: 4}"), tmp_path / "gate"
    wait = f"""
        import time
        kept = session.evaluate
        def gated(*arguments, **named):
            while not os.path.exists({str(gate)!r}):
                time.sleep(0.01)
            return kept(*arguments, **named)
        session.evaluate = gated
    """
    one, other = (go(file, tmp_path / "run", wait, stop=False) for _ in range(2))
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and len(list((tmp_path / "run" / "workers").glob("[0-9a-f]" * 12))) < 2:
        time.sleep(0.05)
    while time.monotonic() < deadline and len(trials(tmp_path / "run")) < 2:
        time.sleep(0.05)
    one.send_signal(signal.SIGINT)
    out, err = one.communicate(timeout=60)
    assert one.returncode == 130 and "give the same command again" in out and "Traceback" not in err, err
    gate.touch()
    _, err = other.communicate(timeout=120)
    assert other.returncode == 0, err
    rows = found(tmp_path / "run")
    assert len(rows) == 6 == len({json.dumps(params) for params, _ in rows})
    assert len(trials(tmp_path / "run")) == 7


@pytest.mark.parametrize(("owner", "name"), [(session, "evaluate"), (Record, "finish")])
def test_a_full_disk_stops_the_study_and_loses_nothing(study_file, tmp_path, monkeypatch, owner, name):
    file = study_file(trials="4")
    run(load(file), out=tmp_path / "whole", quiet=True)
    whole, calls = getattr(owner, name), []

    def filled(*arguments, **named):
        calls.append(1)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2048 if len(calls) == 3 else soft, hard))
        try:
            return whole(*arguments, **named)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    monkeypatch.setattr(owner, name, filled)
    with pytest.raises(NotSaved, match="cannot be (written|used)"):
        run(load(file), out=tmp_path / "run", quiet=True)
    assert len(found(tmp_path / "run")) == 2
    run(load(file), out=tmp_path / "run", quiet=True)
    assert found(tmp_path / "run") == found(tmp_path / "whole")
