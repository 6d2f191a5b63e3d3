"""How a running study shows itself: a live view on a terminal, one line a trial elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, TextIO

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.objectives import Objective

EVERY = 0.5  # seconds between drawings, at least
MEMBERS = 8  # of the front that are shown
REASONS = 3


class Display:
    """Shows trials as they go; a context manager.

    Args:
        of: trials in all.
        within: the constraints that every trial keeps.
        stream: where to; ``sys.stderr`` by default.
        quiet: shows nothing.
        clock: seconds.
    """

    def __init__(
        self,
        objectives: Sequence[Objective],
        of: int,
        *,
        within: Sequence[str] = (),
        stream: TextIO | None = None,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.objectives, self.of, self.within, self.quiet, self.clock = objectives, of, within, quiet, clock
        self.stream = stream or sys.stderr
        self.live: Live | None = None
        self.known: dict[int, FrozenTrial] = {}
        self.ended_before: int | None = None
        self.ended_now = 0
        self.steps: dict[int, tuple[int | None, int, int, float]] = {}  # of workers: trial, step, of, loss
        self.began = self.drawn = clock()
        self._front: tuple[int, RenderableType] | None = None

    def __enter__(self) -> Display:
        if self.stream.isatty() and not self.quiet:
            console = Console(file=self.stream)
            self.live = Live(self, console=console, auto_refresh=False, transient=True)
            self.live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live is not None:
            self.live.stop()  # gives the cursor back, whatever happened

    def seen(self, trials: Sequence[FrozenTrial]) -> None:
        """All trials that are known by now."""
        self.known = {trial.number: trial for trial in trials}
        self._changed()

    def done(self, trials: int) -> None:
        """How many trials have ended."""
        if self.ended_before is None:
            self.ended_before, self.began = trials, self.clock()
        self.ended_now = trials
        self._changed()

    def step(self, step: int, of: int, loss: float, *, worker: int = 0, trial: int | None = None) -> None:
        """A training step of the trial that a worker runs."""
        if self.live is not None:
            self.steps[worker] = (trial, step, of, loss)
            self._changed()

    def idle(self, worker: int) -> None:
        """A worker has no trial now."""
        self.steps.pop(worker, None)

    def ended(self, trial: FrozenTrial) -> None:
        """A trial ended."""
        self.known[trial.number] = trial
        if trial.state == TrialState.COMPLETE:
            said = self._values(trial.values)
        elif trial.state == TrialState.PRUNED:
            result = trial.user_attrs["result"]
            steps = f" after {result['steps']} steps" if "steps" in result else ""
            said = f"stopped{steps}  {self._values(result['values'].values())}"
        else:
            said = f"failed: {str(trial.user_attrs.get('reason', '')).partition(chr(10))[0]}"
        self.say(f"trial {trial.number:>3}  {said}")

    def _values(self, values: Iterable[float]) -> str:
        pairs = zip(self.objectives, values, strict=True)
        return "  ".join(f"{objective.name} {shown(value, objective.unit)}" for objective, value in pairs)

    def say(self, line: str) -> None:
        """One line."""
        if self.live is not None:
            self.live.console.print(line, markup=False, highlight=False)
        elif not self.quiet:
            print(line, file=self.stream, flush=True)

    def _changed(self) -> None:
        if self.live is not None and self.clock() - self.drawn >= EVERY:
            self.drawn = self.clock()
            self.live.refresh()

    def __rich__(self) -> RenderableType:
        return Group(self._whole(), *self._workers(), self._found(), *self._bounds())

    def _whole(self) -> RenderableType:
        states = Counter(trial.state for trial in self.known.values())
        said = [f"{self.ended_now} of {self.of} trials"]
        said += [f"{states[TrialState.FAIL]} failed"] if states[TrialState.FAIL] else []
        said += [f"{states[TrialState.RUNNING]} running"] if states[TrialState.RUNNING] else []
        draws = sum(_candidate(trial).get("draws", 1) for trial in self.known.values())
        said += [f"{len(self.known) / draws:.0%} of draws accepted"] if draws > len(self.known) else []
        said.append(self._left())
        return _bar(self.ended_now, self.of, ", ".join(filter(None, said)))

    def _left(self) -> str:
        here = self.ended_now - (self.ended_before or 0)
        if here <= 0 or self.ended_now >= self.of:
            return ""
        seconds = (self.clock() - self.began) / here * (self.of - self.ended_now)
        return f"about {lasting(seconds)} left"

    def _workers(self) -> list[RenderableType]:
        found = []
        for worker, (trial, step, of, loss) in sorted(self.steps.items()):
            who = [f"worker {worker}"] if len(self.steps) > 1 else []
            who += [f"trial {trial}"] if trial is not None else [] if who else ["training"]
            found.append(_bar(step, of, f"{' '.join(who)}, step {step} of {of}, loss {loss:.3f}"))
        return found

    def _found(self) -> RenderableType:
        complete = [trial for trial in self.known.values() if trial.state == TrialState.COMPLETE]
        if self._front is None or self._front[0] != len(complete):
            self._front = len(complete), self._table(complete)
        return self._front[1]

    def _table(self, complete: list[FrozenTrial]) -> RenderableType:
        from search.front import front

        if not complete:
            return Text("")
        best = front(complete, [objective.direction for objective in self.objectives])
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("front", justify="right")
        places = {0, len(best) - 1}
        ends = []
        for number, objective in enumerate(self.objectives):
            table.add_column(f"{objective.name} ({objective.direction[:3]})", justify="right")
            column = [trial.values[number] for trial in best]
            ends.append((min if objective.direction == "minimize" else max)(column))
            places.add(column.index(ends[-1]))
        more = max(1, MEMBERS - len(places))
        places.update(round(place * (len(best) - 1) / more) for place in range(more))
        for place in sorted(places):
            cells = [Text(shown(value, o.unit), "bold green" if value == end else "")
                     for o, value, end in zip(self.objectives, best[place].values, ends, strict=True)]  # fmt: skip
            table.add_row(f"trial {best[place].number}", *cells)
        if len(best) > len(places):
            table.add_row(f"{len(best) - len(places)} more", *("" for _ in self.objectives))
        return table

    def _bounds(self) -> list[RenderableType]:
        """Constraints, and how many draws they or anything else refused."""
        refused: Counter[str] = Counter(dict.fromkeys(self.within, 0))
        for trial in self.known.values():
            refused.update(_candidate(trial).get("refused", {}))
        told = {cause: count for cause, count in refused.most_common(REASONS) if count}
        told |= {cause: refused[cause] for cause in self.within}
        return [Text(f"{'within ' * (cause in self.within)}{cause}: {count:,} draws refused", "dim")
                for cause, count in told.items()]  # fmt: skip


def _candidate(trial: FrozenTrial) -> dict[str, Any]:
    found: dict[str, Any] = trial.user_attrs.get("candidate", {})
    return found


def _bar(done: int, of: int, words: str) -> RenderableType:
    row = Table.grid(padding=(0, 1))
    row.add_row(ProgressBar(total=max(1, of), completed=done, width=24), Text(words))
    return row


def lasting(seconds: float) -> str:
    """A duration as people say it."""
    if seconds < 90:
        return f"{seconds:.3g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def shown(value: float, unit: str) -> str:
    """A figure as people read it."""
    if unit == "bytes":
        for prefix, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
            if abs(value) >= scale:
                return f"{value / scale:.4g} {prefix}B"
        return f"{value:.4g} B"
    if abs(value) >= 1e5:
        for prefix, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
            if abs(value) >= scale:
                return f"{value / scale:.4g} {prefix}{unit}".rstrip()
    return f"{value:.4g} {unit}".rstrip()
