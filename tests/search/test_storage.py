"""The record: nothing finished twice, whoever proposes or dies when; and what is said of storages that do not open."""

import importlib.util
import json
import threading
import time
import warnings
from contextlib import ExitStack, closing, contextmanager

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState
from sqlalchemy import event

from archspec.errors import SpecError
from benchmarks import servers
from search import provenance, storage, storages
from search.durable import NotSaved
from search.heartbeat import Listener
from search.runner import run
from search.storage import Record, candidate, counted
from search.study import load
from tests.search.studies import go, trials

SERVED = [
    pytest.param(name, marks=[pytest.mark.services, pytest.mark.slow]) for name in ("postgresql", "mysql", "grpc")
]


@pytest.fixture(scope="session")
def served():
    """The URL of a server of a kind, started when it is first asked for."""
    with ExitStack() as running:
        known = {}

        def url(kind):
            if kind not in known:
                try:
                    with warnings.catch_warnings():
                        opened = servers.grpc(url("postgresql")) if kind == "grpc" else getattr(servers, kind)()
                        known[kind] = running.enter_context(opened)
                except servers.Absent as absent:
                    warnings.warn(f"not tested with {kind}: {absent}", stacklevel=2)
                    pytest.skip(str(absent))
            return known[kind]

        yield url


@pytest.fixture(params=["sqlite", "journal", *SERVED])
def anywhere(request, served):
    """Every kind of storage, each of them empty: files by their folder, servers by the study's name."""
    return request.param if request.param in ("sqlite", "journal") else served(request.param)


@contextmanager
def records(url, *folders, silence=60.0):
    """Workers of one study, each in a folder of its own, as on machines that share nothing but the storage."""
    with ExitStack() as opened:
        name = "-".join(folders[0].parts[-2:])  # a server keeps other tests' studies
        yield [opened.enter_context(closing(Record(url, name, ["minimize"], f, silence=silence))) for f in folders]


def shared(url, tmp_path, *names):
    """Folders of machines that share a storage: a file must lie in one that they share as well."""
    if url == "journal":
        return f"journal:{tmp_path / 'shared.journal'}", [tmp_path / name for name in names]
    return url, [tmp_path / ("one" if url == "sqlite" else name) for name in names]


def test_of_those_that_propose_the_same_at_once_one_goes_on(anywhere, tmp_path):
    url, folders = shared(anywhere, tmp_path, "a", "b", "c")
    rounds, won = 8, []
    with records(url, *folders) as workers:
        gate = threading.Barrier(len(workers))

        def propose(record):
            for number in range(rounds):
                gate.wait()
                trial = record.start({}, {}, {}, key=f"key {number}")
                if trial is not None:
                    won.append(number)
                    assert record.finish(trial, [float(number)], {})

        threads = [threading.Thread(target=propose, args=[record]) for record in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        found = workers[0].trials()
    assert sorted(won) == list(range(rounds))
    finished = [trial for trial in found if trial.state == TrialState.COMPLETE]
    assert sorted(trial.values[0] for trial in finished) == list(range(rounds)) and counted(found) == finished
    assert [trial.number for trial in found] == list(range(len(found)))


def test_no_more_trials_are_begun_than_a_study_has(anywhere, tmp_path):
    url, folders = shared(anywhere, tmp_path, "a", "b")
    with records(url, *folders) as (one, other):
        assert one.start({}, {}, {}, key="1", most=2) and other.start({}, {}, {}, key="2", most=2)
        assert one.start({}, {}, {}, key="3", most=2) is None
        assert len(counted(one.trials())) == 2


def test_what_was_given_to_another_cannot_be_finished_any_more(anywhere, tmp_path):
    url, folders = shared(anywhere, tmp_path, "a", "b")
    with records(url, *folders) as (slow, other):
        trial = slow.start({}, {}, {}, key="same")
        assert other.start({}, {}, {}, key="same") is None
        assert other.fail(trial, "held for dead", again=True)
        anew = other.start({}, {}, {}, key="same")
        assert anew is not None and other.finish(anew, [2.0], {})
        assert not slow.finish(trial, [1.0], {}) and not slow.fail(trial, "late")
        assert [t.values for t in counted(slow.trials())] == [[2.0]]


def test_a_worker_elsewhere_is_dead_when_its_heart_stops_and_not_before(anywhere, tmp_path, monkeypatch):
    if anywhere == "sqlite":
        pytest.skip("one machine")
    monkeypatch.setattr(storage, "POLL_SECONDS", 0.05)
    url, folders = shared(anywhere, tmp_path, "a", "b")
    with records(url, *folders, silence=3.0) as (one, other):
        trial = one.start({}, {}, {}, key="1")
        began = time.monotonic()
        assert not other.wait_for_signs()  # it beats
        assert time.monotonic() - began < 3.0 and other.stale() == []
        one._heart.close()
        assert other.wait_for_signs()
        assert [stale.number for stale in other.stale()] == [trial.number]
        assert one.stale() == []  # its own


def test_a_silent_trial_is_dead_by_the_listeners_clock_alone(tmp_path):
    moments = iter([0, 50, 100, 161])
    with records("sqlite", tmp_path / "run") as (record,):
        trial = record.start({}, {}, {}, key="1")
        listener = Listener(60, clock=lambda: next(moments))
        frozen = record.trials()[0]
        assert not listener.silent(frozen) and not listener.silent(frozen)
        record._storage.set_trial_system_attr(trial.trial_id, "beat", 1)
        frozen = record.trials()[0]
        assert not listener.silent(frozen) and listener.silent(frozen)


def test_a_dead_worker_of_this_machine_is_known_at_once_and_one_of_another_folder_is_not_judged(tmp_path):
    with records("sqlite", tmp_path / "run", tmp_path / "run") as (dead, judge):
        dead.start({}, {}, {}, key="1")
        assert judge.stale() == []
        dead.close()  # without a word of the trial: so it looks when a process dies
        assert len(judge.stale()) == 1
        (tmp_path / "run" / "workers" / "place").unlink()
        with records("sqlite", tmp_path / "run") as (stranger,):  # by the same path, as from another machine
            assert stranger.stale() == []


def test_a_death_is_no_fault_of_a_candidate_whose_supervisor_died_as_well(tmp_path):
    with records("sqlite", tmp_path / "run", tmp_path / "run") as (supervisor, judge):
        for watched in (None, supervisor.worker):
            with closing(Record("sqlite", judge.name, ["minimize"], tmp_path / "run", supervisor=watched)) as worker:
                worker.start({}, {}, {}, key=str(watched))
        assert [judge.blames(trial) for trial in judge.stale()] == [True, True]
        supervisor.close()
        assert [judge.blames(trial) for trial in judge.stale()] == [True, False]


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_a_journal_that_was_cut_in_a_line_goes_on_from_the_line_before(tmp_path, cut):
    with records("journal", tmp_path / "run") as (record,):
        record.finish(record.start({}, {}, {}, key="1"), [1.0], {})
        journal = tmp_path / "run" / storages.JOURNAL
        whole = journal.read_bytes()
        record.start({}, {}, {}, key="2")
    journal.write_bytes(whole + journal.read_bytes()[len(whole) :][:cut])  # as power loss leaves it
    with records("journal", tmp_path / "run") as (record,):
        record.finish(record.start({}, {}, {}, key="3"), [3.0], {})
        assert [trial.values for trial in record.trials()] == [[1.0], [3.0]]
    assert all(json.loads(line) for line in journal.read_text().splitlines())


def test_a_study_runs_on_a_journal_and_its_folder_tells_so(study_file, tmp_path):
    file = study_file(storage="journal")
    run(load(file), out=tmp_path / "run", quiet=True)
    assert [trial.state for trial in trials(tmp_path / "run")] == [TrialState.COMPLETE] * 3
    assert not (tmp_path / "run" / storages.DATABASE).exists()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://me:s3cret@127.0.0.1:1/db", "postgresql://127.0.0.1:1/db cannot be opened: .*refused"),
        ("postgres://me:s3c/r@t@nowhere.invalid/db", "postgres://nowhere.invalid/db cannot be opened: .*%40"),
        ("postgresql://me:s3cret@nowhere.invalid/db", "postgresql://nowhere.invalid/db cannot be opened: .*resolve"),
        ("mysql://me:s3cret@127.0.0.1:1/db", "mysql://127.0.0.1:1/db cannot be opened: .*refused"),
        ("grpc://127.0.0.1:1", "grpc://127.0.0.1:1 cannot be opened: no server answers"),
        ("grpc://node", "a host and a port are missing"),
        ("mongodb://me:s3cret@node", "there is no storage mongodb://node"),
        ("sqlite:///study.db", "there is no storage sqlite:///study.db"),
        ("journal:/proc/no/such", "/proc/no/such cannot be opened: "),
    ],
)
def test_a_storage_that_does_not_open_is_told_in_a_line_without_the_password(
    study_file, tmp_path, url, said, monkeypatch
):
    driver = storages.DRIVERS.get({"postgres": "postgresql"}.get(url.partition(":")[0], url.partition(":")[0]))
    if driver is not None and importlib.util.find_spec(driver) is None:
        said = f"needs {driver}, which is not installed"
    monkeypatch.setattr(storages, "CONNECT_SECONDS", 1)
    with pytest.raises(SpecError, match=said) as caught:
        run(load(study_file(storage=url)), out=tmp_path / "run", quiet=True)
    (problem,) = caught.value.problems
    assert "s3c" not in str(problem) and "\n" not in problem.cause and problem.mark.line > 1


def test_a_missing_driver_is_named_with_the_extra_that_has_it(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SpecError, match=r"(?s)needs psycopg.*pip install 'archspec-nas\[postgresql\]'"):
        Record("postgresql://node/db", "a", ["minimize"], tmp_path)


@pytest.mark.parametrize(
    ("where", "fact", "said"),
    [
        ("program", "9.9.1", "program was '0.1', is '9.9'"),
        ("_device", {"device": "Other"}, "device.device was .*, is 'Other'"),
    ],
)
def test_a_study_does_not_go_on_with_another_program_or_device(study_file, tmp_path, monkeypatch, where, fact, said):
    timed = "[validation_loss, {kind: latency, measured: true, repeats: 3}]"
    file = study_file(objectives=timed, trials="1", train="{steps: 1, batch: 4}")
    run(load(file), out=tmp_path / "run", quiet=True)
    monkeypatch.setattr(provenance, where, lambda *_: fact)
    with pytest.raises(SpecError, match=said):
        run(load(file), out=tmp_path / "run", quiet=True)


def test_a_device_does_not_matter_where_nothing_is_measured(study_file, tmp_path, monkeypatch):
    run(load(study_file(trials="1")), out=tmp_path / "run", quiet=True)
    monkeypatch.setattr(provenance, "_device", lambda name: {"device": "Other"})
    run(load(study_file(trials="2")), out=tmp_path / "run", quiet=True)
    made = [trial.user_attrs["result"]["made"] for trial in trials(tmp_path / "run")]
    assert made[0]["device"] != made[1]["device"] == "Other" and made[0]["data"] == made[1]["data"]


def test_another_study_of_the_same_name_is_refused(tmp_path):
    with (
        records("sqlite", tmp_path / "run") as (record,),
        pytest.raises(SpecError, match="has another study called"),
    ):
        Record("sqlite", record.name, ["minimize", "maximize"], tmp_path / "run")


def test_a_server_that_comes_back_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "PATIENCE", (0.01, 0.01))
    monkeypatch.setattr(storages, "file", lambda url, folder: None)  # as of a server
    with records("sqlite", tmp_path / "run") as (record,):
        trial, whole, calls = record.start({}, {}, {}, key="1"), record._storage.set_trial_state_values, []

        def gone(*arguments, **named):
            calls.append(1)
            if len(calls) < 3:
                raise storages.optuna.exceptions.StorageInternalError("gone")
            return whole(*arguments, **named)

        monkeypatch.setattr(record._storage, "set_trial_state_values", gone)
        assert record.finish(trial, [1.0], {})
        assert len(calls) == 3 and record.trials()[0].values == [1.0]


def test_two_machines_share_a_study(study_file, tmp_path, anywhere, meeting):
    if anywhere == "sqlite":
        pytest.skip("one machine")
    url, folders = shared(anywhere, tmp_path, "a", "b")
    lines = {"train": "{steps: 1, batch: 4}", "objectives": "[parameters, test/meets]", "name": f"two-{tmp_path.name}"}
    file = study_file(**lines, storage=url, trials="9")
    before = f"from search import plugins\nplugins.load([{str(meeting)!r}])"
    machines = [go(file, folder, before, stop=False) for folder in folders]
    for machine in machines:
        _, err = machine.communicate(timeout=300)
        assert machine.returncode == 0, err
    with closing(Record(url, f"two-{tmp_path.name}", ["minimize", "minimize"], folders[0])) as record:
        rows = counted(record.trials())
    assert len(rows) == 9 == len({candidate(row)["key"] for row in rows})
    assert {row.state for row in rows} == {TrialState.COMPLETE}
    assert len({candidate(row)["worker"] for row in rows}) == 2


def test_a_full_disk_leaves_a_journal_whole(tmp_path, monkeypatch):
    with records("journal", tmp_path / "run") as (record,):
        trial = record.start({}, {}, {}, key="1")
        before = (tmp_path / "run" / storages.JOURNAL).read_bytes()

        def full(handle):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(storages.os, "fsync", full)
        with pytest.raises(NotSaved, match="No space left"):
            record.finish(trial, [1.0], {})
        assert (tmp_path / "run" / storages.JOURNAL).read_bytes() == before
        monkeypatch.undo()
        assert record.finish(trial, [1.0], {})


def test_a_choice_of_a_trial_takes_one_statement(tmp_path):
    def statements(record, choices):
        said = []

        def listener(*given):
            said.append(given[2])

        event.listen(record.storage.engine, "before_cursor_execute", listener)
        names = [f"choice{number}" for number in range(choices)]
        params, of = dict.fromkeys(names, "b"), dict.fromkeys(names, CategoricalDistribution(["a", "b"]))
        record.start(params, of, {}, key=f"{choices} choices")
        event.remove(record.storage.engine, "before_cursor_execute", listener)
        return len(said)

    with closing(Record("sqlite", "many", ["minimize"], tmp_path)) as record:
        statements(record, 1)  # sees an empty study
        assert statements(record, 60) <= statements(record, 2) + 58
    plain = optuna.load_study(study_name="many", storage=f"sqlite:///{tmp_path / 'study.db'}")  # Optuna's own reader
    assert plain.trials[1].params == {f"choice{number}": "b" for number in range(60)}
