"""Limits of a candidate, and the quiet in which time is measured."""

import threading
import time

import numpy as np
import pytest
import torch

from archspec.errors import SpecError
from archspec.source import parse
from search import latency
from search.kinds import fields
from search.limits import Limits
from search.locks import Quiet
from search.runner import run
from search.session import Asked, OpenStudy
from search.study import load
from tests.search.studies import trials


@pytest.mark.parametrize(
    ("said", "bytes_"), [("4 GB", 4_000_000_000), ("512MiB", 512 * 2**20), ("1.5 kB", 1500), (None, None)]
)
def test_an_amount_of_memory_is_read_as_people_write_it(said, bytes_):
    assert Limits(memory=said).bytes == bytes_


@pytest.mark.parametrize("line", ["{memory: lots}", "{memory: 4}", "{minutes: 0}", "{minutes: -1}", "{hours: 1}"])
def test_a_wrong_limit_is_told_with_its_place(line):
    with pytest.raises(SpecError, match=r"limits\.(memory|minutes|hours)"):
        fields(Limits, parse(line, "study.yaml"), "limits")


def test_memory_beyond_the_limit_is_refused_to_torch_and_numpy_and_given_again_afterwards():
    with Limits(memory="200 MB").enforced("cpu"):
        held = torch.ones(25_000_000)  # 100 MB
        with pytest.raises(RuntimeError, match="can't allocate memory"):
            torch.ones(50_000_000)
        with pytest.raises(MemoryError):
            np.ones(50_000_000)
    assert torch.ones(75_000_000).sum() == 3 * held.sum()


def test_a_candidate_that_is_known_to_need_more_than_its_limit_fails_by_name_untrained(study_file, tmp_path):
    run(load(study_file(limits="{memory: 10 kB}", trials="1")), out=tmp_path / "run", quiet=True)
    (row,) = trials(tmp_path / "run")
    assert "its limit is 10 kB" in row.user_attrs["reason"] and "limits.memory" in row.user_attrs["reason"]
    assert not (tmp_path / "run" / "trials").exists()


def test_time_is_measured_alone_and_those_that_wait_to_measure_are_let_in_before_new_work(tmp_path):
    """Each of several workers works and measures by turns; what was inside together is noted."""
    inside, together, measured = set(), [], []
    note = threading.Lock()

    def worker(number):
        quiet = Quiet(tmp_path)
        for turn in range(5):
            for kind in ("working", "measuring"):
                with getattr(quiet, kind)():
                    with note:
                        inside.add((kind, number))
                        together.append(sorted(kind for kind, _ in inside))
                    time.sleep(0.005)
                    with note:
                        inside.discard((kind, number))
            measured.append((number, turn))

    threads = [threading.Thread(target=worker, args=[number]) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(measured) == 15
    assert all(kinds in (["measuring"], ["working"] * len(kinds)) for kinds in together)
    assert ["working", "working"] in together


def test_measuring_is_not_put_off_for_ever_by_work_that_comes_after_it(tmp_path):
    stop, waits, began = threading.Event(), [], threading.Barrier(3)

    def work(offset):
        quiet = Quiet(tmp_path)
        began.wait()
        time.sleep(offset)
        while not stop.is_set():
            with quiet.working():
                time.sleep(0.1)

    threads = [threading.Thread(target=work, args=[offset], daemon=True) for offset in (0, 0.05)]
    for thread in threads:
        thread.start()
    began.wait()
    time.sleep(0.2)
    start = time.monotonic()
    with Quiet(tmp_path, waits.append).measuring():  # somebody is always at work, and yet
        assert time.monotonic() - start < 5
    stop.set()
    assert waits == [True, False]
    for thread in threads:
        thread.join(10)


def test_a_measured_latency_is_taken_without_work_beside_it(study_file, tmp_path, monkeypatch):
    whole, free = latency.measure, []

    def measure(*arguments, **named):
        def try_to_work():
            with Quiet(tmp_path / "run").working():
                free.append(time.monotonic())

        thread = threading.Thread(target=try_to_work)
        thread.start()
        thread.join(0.3)
        free.append("measured")
        return whole(*arguments, **named)

    monkeypatch.setattr(latency, "measure", measure)
    timed = "[validation_loss, {kind: latency, measured: true, repeats: 3}]"
    study = OpenStudy(load(study_file(objectives=timed, trials="1", train="{steps: 1, batch: 4}")), tmp_path / "run")
    asked = study.ask()
    assert isinstance(asked, Asked)
    study.train(asked)
    study.close()
    assert free[0] == "measured"
