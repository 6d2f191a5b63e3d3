"""Workers of a study on the machines of a Ray cluster: Ray places them where their resources are, and starts them anew
where a machine is lost.

Each worker is a task that supervises one process, as `search.crew` does, so that limits hold and crashes are survived
there as here. The study's storage must be one that all machines reach, and its file, space and plugins lie under the
same path on all of them; a shared folder of results has evaluations go on from their checkpoints on another machine.
"""

from __future__ import annotations

import importlib.util
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from archspec.errors import Problem, SpecError
from search import interrupts, storages
from search.crew import require_done
from search.progress import Display
from search.proposals import Exhausted
from search.session import OpenStudy
from search.study import load

POLL_SECONDS = 1.0
REACH_SECONDS = 10.0
RESTARTS = 10  # of a worker whose machine is lost


def run(
    opened: OpenStudy, display: Display, plugin_files: Sequence[Path], *, address: str, cpus: float = 1
) -> Exhausted | None:
    """Runs a study's workers on a cluster until its trials are spent; why there are fewer.

    Args:
        address: of the cluster, as ``ray://head:10001`` or ``auto``; ``local`` for one of this machine's own.
        cpus: processors of each worker. A study on ``device: cuda`` takes one GPU each.

    Errors:
        SpecError: Ray is not installed, there is no cluster, the storage is a file of this machine, or of a worker.
    """
    study = opened.study
    if importlib.util.find_spec("ray") is None:
        raise SpecError(Problem("--ray needs ray, which is not installed", "pip install 'archspec-nas[ray]'"))
    import ray

    if address != "local" and storages.within(study.storage):
        cause = f"storage: {study.storage} is a file of one machine, the workers of a cluster are on several"
        raise SpecError(Problem(cause, "name a database, or journal:/path on a shared disk", "storage"))
    try:
        _reach(address)
        ray.init(address=address, log_to_driver=False, logging_level="error", include_dashboard=False)
    except (OSError, ValueError, RuntimeError) as error:
        cause = f"there is no Ray cluster at {address}: {str(error).strip().splitlines()[0]}"
        raise SpecError(Problem(cause, "start one with ray start --head, or name its address", "--ray")) from None
    try:
        # A worker that dies with its machine is a task that Ray runs again; a crash of a candidate does not reach it.
        task = ray.remote(
            num_cpus=cpus, num_gpus=1 if study.recipe.device == "cuda" else 0, max_retries=RESTARTS, max_calls=1
        )(_work)
        plugins = [str(Path(path).resolve()) for path in plugin_files]
        out = str(opened.folder.resolve())
        what = str(Path(study.file).resolve()), dict(study.freeze), study.trials, out, plugins
        left = [task.remote(*what) for _ in range(study.workers or 1)]
        with interrupts.heeded():  # Ray has a handler of its own for SIGTERM, which ends the process where it is
            return _watched(ray, opened, display, left)
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Tries the port of an address, which Ray itself does for minutes. Raises OSError, ValueError."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host:
        socket.create_connection((host, int(port)), timeout=REACH_SECONDS).close()


def _watched(ray: Any, opened: OpenStudy, display: Display, left: list[Any]) -> Exhausted | None:
    told = {trial.number for trial in opened.record.trials() if trial.state.is_finished()}
    exhausted: Exhausted | None = None
    try:
        while left:
            done, left = ray.wait(left, timeout=POLL_SECONDS)
            for reference in done:
                kind, content = _result(ray, reference)
                if kind == "error":
                    raise SpecError(*content)
                exhausted = content or exhausted
            trials = opened.record.trials()
            for trial in trials:
                if trial.state.is_finished() and trial.number not in told:
                    told.add(trial.number)
                    display.ended(trial)
            display.seen(trials)
    except BaseException:
        for reference in left:
            ray.cancel(reference)  # as Ctrl-C: it puts on record what it gives up
        deadline = time.monotonic() + 20
        while left and time.monotonic() < deadline:
            _, left = ray.wait(left, num_returns=len(left), timeout=POLL_SECONDS)
        raise
    if exhausted is None:
        require_done(opened)
    return exhausted


def _result(ray: Any, reference: Any) -> tuple[str, Any]:
    try:
        found: tuple[str, Any] = ray.get(reference)
    except ray.exceptions.RayError as error:
        return "error", (Problem(f"a worker failed for good: {str(error).strip().splitlines()[0]}"),)
    return found


def _work(file: str, freeze: dict[str, Any], trials: int, folder: str, plugin_files: list[str]) -> tuple[str, Any]:
    """A task: supervises one worker process on the machine where it runs."""
    from contextlib import closing

    from search import crew, plugins

    try:
        plugins.load_installed()
        plugins.load(plugin_files)
        study = replace(load(file, freeze=freeze), trials=trials, workers=1)
        with (
            interrupts.heeded(),
            storages.database_errors(study.storage, Path(folder)),
            closing(OpenStudy(study, Path(folder))) as opened,
            Display(study.objectives, study.trials, quiet=True) as display,
        ):
            return "ended", crew.run(opened, display, [Path(path) for path in plugin_files])
    except SpecError as error:
        return "error", error.problems
