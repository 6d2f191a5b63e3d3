"""Signs of life that reach every machine, through any storage.

Optuna has heartbeats for databases only, and judges them by the clock. Here a running trial carries a number that its
worker counts up; another worker holds it for dead when it has looked at the same number for long enough, by its own
clock. So no two clocks need agree.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

BEAT = "beat"  # a system attribute of a running trial
BEATS = 6  # in the silence after which a worker counts as dead


class Heart:
    """Beats for the trials that this process works on, from a thread."""

    def __init__(self, storage: BaseStorage, silence: float) -> None:
        self._storage, self._seconds = storage, silence / BEATS
        self._trials: set[int] = set()
        self._lost: set[int] = set()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def begin(self, trial_id: int) -> None:
        self._trials.add(trial_id)
        if not self._thread.is_alive():
            self._thread.start()

    def end(self, trial_id: int) -> None:
        self._trials.discard(trial_id)

    def lost(self, trial_id: int) -> bool:
        """Whether somebody else has ended the trial: this process was held for dead, or ran out of time."""
        return trial_id in self._lost

    def close(self) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _beat(self) -> None:
        count = 0
        while not self._stopped.wait(self._seconds):
            count += 1
            for trial_id in tuple(self._trials):
                try:
                    self._storage.set_trial_system_attr(trial_id, BEAT, count)
                except UpdateFinishedTrialError:
                    self._trials.discard(trial_id)
                    self._lost.add(trial_id)
                except Exception:  # out of reach: if it stays so, the thread that works on the trial will say it
                    continue


class Listener:
    """Holds trials of other machines for dead when their numbers do not change."""

    def __init__(self, silence: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._silence, self._clock = silence, clock
        self._heard: dict[int, tuple[int, float]] = {}

    def silent(self, trial: FrozenTrial) -> bool:
        """Whether the trial gave no sign for as long as one must, while it was listened to."""
        beat, now = beats(trial), self._clock()
        with suppress(KeyError):
            heard, since = self._heard[trial._trial_id]
            if heard == beat:
                return now - since > self._silence
        self._heard[trial._trial_id] = beat, now
        return False


def beats(trial: FrozenTrial) -> int:
    """How often a running trial's worker gave a sign."""
    return int(trial.system_attrs.get(BEAT, 0))
