"""Processes that work on a study on this machine: started with their share of it, watched, and replaced when they die.

A candidate that crashes the interpreter, or that hangs until its time is over, takes only its worker along. Workers are
processes of their own program, not forks: a fork of a process in which torch computes does not compute.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from multiprocessing import Pipe
from pathlib import Path

from optuna.trial import TrialState

from archspec.errors import Problem, SpecError
from search.interrupts import INTERRUPTED
from search.progress import Display
from search.proposals import Exhausted
from search.session import OpenStudy
from search.storage import Running, counted
from search.worker import Task

POLL_SECONDS = 0.2
STOP_SECONDS = 10.0


class Worker:
    """A process that works on a study, as it tells of itself."""

    def __init__(self, opened: OpenStudy, number: int, plugin_files: Sequence[Path]) -> None:
        study = opened.study
        self.number = number
        self.trial: Running | None = None
        self.tried = False  # whether it got as far as a trial
        self.exhausted: Exhausted | None = None
        self.step: tuple[int, int, float] | None = None
        self._spent, self._since = 0.0, time.monotonic()  # seconds of the trial, while it does not wait
        self._waits = False
        self.pipe, end = Pipe(duplex=False)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = None if study.workers == 1 else max(1, cores // study.workers)
        task = Task(
            file=os.path.abspath(study.file),
            freeze=dict(study.freeze),
            trials=study.trials,
            folder=os.path.abspath(opened.folder),
            plugin_files=[os.path.abspath(path) for path in plugin_files],
            threads=threads,
            supervisor=opened.record.worker,
            pipe=end.fileno(),
        )
        self.process = subprocess.Popen(
            task.command(), pass_fds=[end.fileno()], env=_environment(study.recipe.device, number, threads)
        )
        end.close()

    def listen(self) -> None:
        """Takes in what the worker has told.

        Errors:
            SpecError: what it ended with.
        """
        try:
            while self.pipe.poll():
                kind, content = self.pipe.recv()
                match kind:
                    case "trial":
                        self.trial, self.step = content, None
                        self.tried = self.tried or content is not None
                        self._spent, self._since = 0.0, time.monotonic()
                    case "waits":
                        if content:
                            self._spent = self.seconds
                        self._since, self._waits = time.monotonic(), content
                    case "step":
                        self.step = content
                    case "error":
                        raise SpecError(*content)
                    case "exhausted":
                        self.exhausted = content
        except (EOFError, OSError):
            return  # it has died, perhaps in the middle of a word

    @property
    def seconds(self) -> float:
        """How long its trial has run."""
        return self._spent + (0.0 if self._waits else time.monotonic() - self._since)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def run(opened: OpenStudy, display: Display, plugin_files: Sequence[Path]) -> Exhausted | None:
    """Runs a study's workers until its trials are spent; why there are fewer.

    Errors:
        SpecError: of a worker, or all of them died before a trial.
        KeyboardInterrupt: from outside, or one of them was stopped.
    """
    study, record = opened.study, opened.record
    told = {trial.number for trial in record.trials() if trial.state.is_finished()}
    exhausted: Exhausted | None = None
    crew = [Worker(opened, number, plugin_files) for number in range(study.workers)]
    try:
        while crew:
            time.sleep(POLL_SECONDS)
            for worker in list(crew):
                status = worker.process.poll()  # before it is listened to: what it told before it ended is heard
                worker.listen()
                exhausted = worker.exhausted or exhausted
                if status is None:
                    _hold_to_its_time(opened, worker)
                    continue
                crew.remove(worker)
                if status == INTERRUPTED:
                    raise KeyboardInterrupt
                if status != 0:
                    with record.alone():
                        opened.settle()
                    if worker.trial is not None:
                        display.say(f"a worker died of {_status(status)} in trial {worker.trial.number}")
                    if worker.tried:  # else it never will get as far as a trial
                        crew.append(Worker(opened, worker.number, plugin_files))
            trials = record.trials()
            for trial in trials:
                if trial.state.is_finished() and trial.number not in told:
                    told.add(trial.number)
                    display.ended(trial)
            display.seen(trials)
            display.done(sum(trial.state != TrialState.RUNNING for trial in counted(trials)))
            for worker in crew:
                if worker.step is not None and worker.trial is not None:
                    display.step(*worker.step, worker=worker.number, trial=worker.trial.number)
                else:
                    display.idle(worker.number)
    finally:
        _stop(crew)
    if exhausted is None:
        require_done(opened)
    return exhausted


def require_done(opened: OpenStudy) -> None:
    """Refuses an end of all workers before that of the study.

    Errors:
        SpecError: how many trials are left.
    """
    if (left := opened.study.trials - len(counted(opened.record.trials()))) > 0:
        raise SpecError(Problem(f"all workers died with {left} trials left", "give the same command again to go on"))


def _hold_to_its_time(opened: OpenStudy, worker: Worker) -> None:
    """Ends a trial that takes too long, and its worker with it: what hangs in compiled code hears no exception."""
    limits = opened.study.limits
    if worker.trial is not None and limits.seconds is not None and worker.seconds > limits.seconds:
        # First the record, or another worker would find the trial of a dead process, and try it again.
        opened.record.fail(worker.trial, f"it took longer than its limit of {limits.minutes:g} minutes")
        worker.kill()


def _environment(device: str, number: int, threads: int | None) -> dict[str, str]:
    """A worker's share: of the processor, or a GPU where there are several."""
    # It finds what this process finds, and no plugin twice.
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    if threads is not None:
        found["OMP_NUM_THREADS"] = str(threads)
    if device == "cuda":
        import torch

        said = os.environ.get("CUDA_VISIBLE_DEVICES")
        visible = said.split(",") if said else [str(index) for index in range(torch.cuda.device_count())]
        found["CUDA_VISIBLE_DEVICES"] = visible[number % len(visible)] if visible else ""
    return found


def _stop(crew: Sequence[Worker]) -> None:
    """Ends workers gently, so that they put on record what they give up."""
    _join(crew, 0.5)  # a Ctrl-C on the terminal has reached them already
    for worker in crew:
        if worker.process.poll() is None:
            worker.process.send_signal(signal.SIGINT)
    _join(crew, STOP_SECONDS)
    for worker in crew:
        worker.kill()


def _join(crew: Sequence[Worker], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(worker.process.poll() is None for worker in crew):
        time.sleep(0.05)


def _status(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"status {code}"
