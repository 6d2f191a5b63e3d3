"""Trials an hour with two workers against one, in a study that is bound by its training.

    python -m benchmarks.workers [--trials 16] [--rounds 2]

Both train the same candidates in the same order, each worker with its share of the processor's threads. Counted is the
time from the first trial's begin to the last one's end, without what a start takes. Nothing else may run beside it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from contextlib import closing
from pathlib import Path

from benchmarks.timing import report
from search.runner import run
from search.storage import Record, counted
from search.study import load

STUDY = """
archstudy: 1
name: workers
space: language_model
data: {{kind: text}}
train: {{steps: {steps}, batch: 8, length: 128, validation_batches: 2}}
objectives: [validation_loss, parameters]
constraints: [{{kind: parameters, at_least: 5e5, at_most: 1.5e6}}]
sampler: random
trials: {trials}
workers: {workers}
"""


def trials_per_hour(workers: int, trials: int, steps: int) -> float:
    """Of a study from its first trial's begin to its last one's end."""
    with tempfile.TemporaryDirectory() as place:
        file, out = Path(place) / "study.yaml", Path(place) / "run"
        file.write_text(STUDY.format(workers=workers, trials=trials, steps=steps))
        run(load(file), out=out, quiet=True)
        with closing(Record.existing(out)) as record:
            rows = counted(record.trials())
        ends = sorted(row.datetime_complete for row in rows if row.datetime_complete)
        began = min(row.datetime_start for row in rows if row.datetime_start)
        return len(ends) / (ends[-1] - began).total_seconds() * 3600


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=2)
    chosen = parser.parse_args()
    found: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(chosen.rounds):
        for workers, rates in found.items():
            rates.append(trials_per_hour(workers, chosen.trials, chosen.steps))
    one, two = (statistics.median(rates) for rates in found.values())
    rows = [
        {"workers": 1, "trials an hour": one, "times": 1.0},
        {"workers": 2, "trials an hour": two, "times": two / one},
    ]
    report("workers", rows, ("torch", "optuna"))


if __name__ == "__main__":
    main()
