"""How a running study shows itself: a bar on a terminal, one line a trial elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import TextIO

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from search.objectives import Objective


class Display:
    """Shows trials as they go; a context manager.

    Args:
        stream: where to; ``sys.stderr`` by default.
        quiet: shows nothing.
    """

    def __init__(
        self, objectives: Sequence[Objective], of: int, *, stream: TextIO | None = None, quiet: bool = False
    ) -> None:
        self.objectives, self.of, self.quiet = objectives, of, quiet
        self.stream = stream or sys.stderr
        self.bar: Progress | None = None
        self.study = self.training = TaskID(0)

    def __enter__(self) -> Display:
        if self.stream.isatty() and not self.quiet:
            self.bar = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                TimeRemainingColumn(), console=Console(file=self.stream),
            )  # fmt: skip
            self.bar.start()
            self.study = self.bar.add_task("trials", total=self.of)
            self.training = self.bar.add_task("training", total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def done(self, trials: int) -> None:
        """How many trials have ended."""
        if self.bar is not None:
            self.bar.update(self.study, completed=trials)

    def step(self, step: int, of: int, loss: float) -> None:
        """A training step of the trial that runs."""
        if self.bar is not None:
            self.bar.update(self.training, completed=step, total=of, description=f"training, loss {loss:.3f}")

    def ended(self, trial: FrozenTrial) -> None:
        """A trial ended."""
        if trial.state == TrialState.COMPLETE:
            pairs = zip(self.objectives, trial.values, strict=True)
            said = "  ".join(f"{o.name} {shown(value, o.unit)}" for o, value in pairs)
        else:
            said = f"failed: {str(trial.user_attrs.get('reason', '')).splitlines()[0]}"
        self.say(f"trial {trial.number:>3}  {said}")

    def say(self, line: str) -> None:
        """One line."""
        if self.bar is not None:
            self.bar.console.print(line, markup=False, highlight=False)
        elif not self.quiet:
            print(line, file=self.stream, flush=True)


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
