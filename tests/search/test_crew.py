"""Worker processes: a candidate that misbehaves takes at most its own process along, and the study goes on."""

import os
import signal
import time
from contextlib import suppress

import pytest
from optuna.trial import TrialState

from archspec.errors import SpecError
from search import interrupts, plugins
from search.objectives import Objective
from search.runner import run
from search.storage import candidate
from search.study import load
from tests.search.studies import go, trials

# An objective of the user's, in a file that workers import too: four models in the order of their coming misbehave.
STRIKES = """
from typing import Literal
import ctypes
from pathlib import Path
import torch
from search.objectives import Objective

DEEDS = [
    lambda: ctypes.string_at(0),
    lambda: ctypes.CDLL(None).sleep(600),  # no exception reaches it
    lambda: torch.ones(10**9).sum().item(),
    lambda: float("nan"),
]

class Strikes(Objective):
    kind: Literal["test/strikes"] = "test/strikes"

    def after(self, trained):
        known = Path(__file__).with_suffix(".known")
        names = known.read_text().split() if known.exists() else []
        name = str(trained.candidate.spec.full)
        if name not in names:
            names.append(name)
            known.write_text(" ".join(names))
        number = names.index(name)
        return DEEDS[number]() if number < len(DEEDS) else 1.0
"""


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "strikes.py"
    path.write_text(STRIKES)
    plugins.load([path])
    yield path
    Objective.registered.pop("test/strikes")


def test_one_worker_outlives_candidates_that_crash_hang_grow_or_return_nan(study_file, tmp_path, plugin):
    lines = {"train": "{steps: 1, batch: 4}", "objectives": "[parameters, test/strikes]", "workers": "1"}
    study = load(study_file(**lines, trials="6", limits="{minutes: 0.15, memory: 500 MB}"))
    run(study, out=tmp_path / "run", plugin_files=[plugin], quiet=True)
    rows = [row for row in trials(tmp_path / "run") if not row.user_attrs.get("again")]
    ended = {candidate(row)["hash"]: row for row in rows}
    crashed, hung, grown, nan, *fine = (ended[name] for name in (tmp_path / "strikes.known").read_text().split())
    assert crashed.user_attrs["reason"] == "the process died while it trained this, for the 3rd time"
    assert hung.user_attrs["reason"] == "it took longer than its limit of 0.15 minutes"
    assert "can't allocate memory: you tried to allocate 4000000000 bytes" in grown.user_attrs["reason"]
    assert nan.user_attrs["reason"] == "ValueError: test/strikes is nan"
    assert [row.state for row in fine] == [TrialState.COMPLETE] * 2 and len(rows) == 6


def test_workers_share_a_study(study_file, tmp_path, meeting, capsys):
    lines = {"train": "{steps: 1, batch: 4}", "objectives": "[parameters, test/meets]", "workers": "2"}
    run(load(study_file(**lines, trials="8")), out=tmp_path / "run", plugin_files=[meeting])
    rows = trials(tmp_path / "run")
    assert len(rows) == 8 and {row.state for row in rows} == {TrialState.COMPLETE}
    assert len({candidate(row)["key"] for row in rows}) == 8
    assert len({candidate(row)["worker"] for row in rows}) == 2
    assert capsys.readouterr().err.count("trial ") == 8


@pytest.mark.parametrize("stop", interrupts.STOPS)
def test_every_stop_is_as_ctrl_c_and_a_second_one_cuts_nothing_off(stop):
    with pytest.raises(KeyboardInterrupt), interrupts.heeded():
        with interrupts.ignored():
            os.kill(os.getpid(), stop)
        os.kill(os.getpid(), stop)
        time.sleep(60)


def test_a_stop_from_outside_returns_the_running_trials_and_tells_how_to_go_on(study_file, tmp_path):
    file = study_file(trials="2", workers="1", train="{steps: 1000000, batch: 4}")
    process = go(file, tmp_path / "run", stop=False)
    deadline = time.monotonic() + 120
    begun = False
    while time.monotonic() < deadline and not begun:
        time.sleep(0.3)
        with suppress(SpecError):  # there is no study yet
            begun = bool(trials(tmp_path / "run"))
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "give the same command again" in out and "Traceback" not in err, err
    (row,) = trials(tmp_path / "run")
    assert row.state == TrialState.FAIL and row.user_attrs["again"]
    assert row.user_attrs["reason"] == "interrupted"


def test_what_is_wrong_in_a_worker_is_told_by_the_study(study_file, tmp_path, plugin):
    study = load(study_file(objectives="[parameters, test/strikes]", workers="1"))
    with pytest.raises(SpecError, match="there is no objective called 'test/strikes'"):
        run(study, out=tmp_path / "run", quiet=True)  # without the plugin, which only this process has imported
    assert trials(tmp_path / "run") == []
