"""How a calibration shows itself: a bar on a terminal, one line a stage elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn


class Stages:
    """Shows how far something is; a context manager, to be called with the share that is done and what comes next.

    Args:
        stream: where to; ``sys.stderr`` by default.
        quiet: shows nothing.
    """

    def __init__(self, *, stream: TextIO | None = None, quiet: bool = False) -> None:
        self.stream, self.quiet = stream or sys.stderr, quiet
        self.bar: Progress | None = None
        self.stage = ""

    def __enter__(self) -> Stages:
        if self.stream.isatty() and not self.quiet:
            self.bar = Progress(
                TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
                console=Console(file=self.stream),
            )  # fmt: skip
            self.bar.start()
            self.task = self.bar.add_task("", total=1.0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, share: float, stage: str) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=share, description=stage)
        elif not self.quiet and stage != self.stage:
            print(f"{share:4.0%}  {stage}", file=self.stream, flush=True)
        self.stage = stage
