"""The live view: what it tells, that it costs little, and that it leaves the terminal as it was."""

import io
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState, create_trial

from search.objectives import CostFigure, Validation
from search.progress import EVERY, Display, lasting

OBJECTIVES = (Validation(kind="validation_loss"), CostFigure(kind="parameters"))
ROOT = Path(__file__).parents[2]


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def trial(number, *values, **attributes):
    state = TrialState.COMPLETE if values else TrialState.FAIL
    found = create_trial(state=state, values=list(values) or None, user_attrs=attributes)
    found.number = number
    return found


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def view(clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    with Display(OBJECTIVES, 24, within=["parameters at most 2e+06"], stream=Terminal(), clock=clock) as display:
        yield display


def last(view, clock):
    """What is drawn now, as plain text."""
    view.stream.seek(0)
    view.stream.truncate()
    clock.now += EVERY
    view.done(view.ended_now)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", view.stream.getvalue())


def test_it_tells_how_far_the_study_is(view, clock):
    view.done(4)
    clock.now = 60
    refused = {"parameters at most 2e+06": 3, "tried before": 1}
    first = trial(0, 2.5, 1e6, candidate={"draws": 5, "refused": refused})
    view.seen([first, trial(1, 2.25, 1.8e6), trial(2, 3.0, 2e6), trial(3, reason="out of memory\nmore")])
    view.done(6)
    view.step(30, 80, 3.125, worker=0, trial=7)
    view.step(10, 80, 4.5, worker=1, trial=8)
    seen = last(view, clock)
    assert "6 of 24 trials, 1 failed, 50% of draws accepted, about 9 min left" in seen  # 18 trials of 30.25 s
    assert "worker 0 trial 7, step 30 of 80, loss 3.125" in seen and "worker 1 trial 8" in seen
    assert re.search(r"trial 1 +2.25 nats +1.8 M\s+trial 0 +2.5 nats +1 M\s", seen) and "trial 2 " not in seen
    assert "within parameters at most 2e+06: 3 draws refused" in seen and "tried before: 1 draws refused" in seen
    view.idle(1)
    assert "worker" not in last(view, clock)


def test_the_best_of_each_objective_is_among_those_shown(clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    objectives = (*OBJECTIVES, CostFigure(kind="flops"))
    with Display(objectives, 99, stream=Terminal(), clock=clock) as view:
        view.seen([trial(n, float(n), abs(n - 33.0), 50.0 - n) for n in range(50)])
        seen = last(view, clock)
    assert all(f"trial {number} " in seen for number in (0, 33, 49)) and "43 more" in seen


def test_it_draws_at_most_twice_a_second(view, clock):
    view.done(0)
    view.stream.truncate(0)
    drawn = 0
    for step in range(1000):
        clock.now += 0.01
        before = view.stream.tell()
        view.step(step, 1000, 1.0)
        drawn += view.stream.tell() > before
    assert 15 <= drawn <= 2 * 10


def test_elsewhere_there_is_a_line_for_each_trial():
    stream = io.StringIO()
    with Display(OBJECTIVES, 2, stream=stream) as display:
        display.done(0)
        display.step(1, 2, 3.0)
        display.ended(trial(0, 2.5, 1e6))
        display.ended(trial(1, reason="out of memory\nmore"))
    lines = ["trial   0  validation_loss 2.5 nats  parameters 1 M", "trial   1  failed: out of memory"]
    assert stream.getvalue().splitlines() == lines


def test_a_thousand_trials_take_little_time(clock):
    with Display(OBJECTIVES, 5000, stream=Terminal(), clock=clock) as display:
        display.seen([trial(n, 1 + 1 / (n + 1), float(n % 997)) for n in range(5000)])
        clock.now = 1.0
        display.step(1, 2, 3.0)
        began = time.process_time()
        for _ in range(10):
            clock.now += 1.0
            display.step(1, 2, 3.0)
        assert (time.process_time() - began) / 10 < 0.1  # of each half second, while nothing ends


PROGRAM = """
import time
from search.objectives import CostFigure
from search.progress import Display
with Display([CostFigure(kind="parameters")], 3) as display:
    display.done(0)
    for step in range(1000):
        display.step(step, 1000, 1.0)
        time.sleep(0.05)
"""


def test_ctrl_c_gives_the_cursor_back():
    leader, follower = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "TERM": "xterm"}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=follower, stdout=follower, stderr=follower,
                               env=environment)  # fmt: skip
    os.close(follower)
    seen = b""
    while b"step" not in seen:
        seen += os.read(leader, 4096)
    process.send_signal(signal.SIGINT)
    while True:
        try:
            more = os.read(leader, 4096)
        except OSError:  # the terminal is closed
            break
        if not more:
            break
        seen += more
    assert process.wait(30) != 0
    os.close(leader)
    assert seen.rindex(b"\x1b[?25h") > seen.rindex(b"\x1b[?25l")


def test_durations():
    assert [lasting(seconds) for seconds in (5, 600, 7200)] == ["5 s", "10 min", "2.0 h"]
