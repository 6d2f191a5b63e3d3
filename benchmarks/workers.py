"""Trials an hour with two workers against one, in a study that is bound by its training.

    python -m benchmarks.workers [--trials 16] [--rounds 2] [--most 300000]

Both train the same candidates in the same order. Two workers have a thread each; one has all threads, as it has by
default, so that what two gain is what small models lose by threads. One worker with one thread is told as well. Counted
is the time from the first trial's begin to the last one's end, without what a start takes. Nothing else may run beside.
"""

from __future__ import annotations

import argparse
import os
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
constraints: [{{kind: parameters, at_least: {least}, at_most: {most}}}]
sampler: random
trials: {trials}
workers: {workers}
"""


def trials_per_hour(workers: int, threads: int | None, trials: int, **lines: float) -> float:
    """Of a study from its first trial's begin to its last one's end."""
    os.environ.pop("OMP_NUM_THREADS", None)
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # workers inherit it
    with tempfile.TemporaryDirectory() as place:
        file, out = Path(place) / "study.yaml", Path(place) / "run"
        file.write_text(STUDY.format(workers=workers, trials=trials, **lines))
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
    parser.add_argument("--most", type=int, default=300_000, help="parameters of a candidate, at least half as many")
    chosen = parser.parse_args()
    lines = {"trials": chosen.trials, "steps": chosen.steps, "least": chosen.most // 2, "most": chosen.most}
    variants: dict[str, tuple[int, int | None]] = {
        "one worker, all threads": (1, None),
        "one worker, one thread": (1, 1),
        "two workers": (2, None),
    }
    found: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(chosen.rounds):
        for name, (workers, threads) in variants.items():
            found[name].append(trials_per_hour(workers, threads, **lines))
    rates = {name: statistics.median(values) for name, values in found.items()}
    first = rates["one worker, all threads"]
    rows = [
        {"study of": f"{chosen.most // 2:,} to {chosen.most:,} parameters", "run by": name, "trials an hour": rate}
        | {"times": rate / first}
        for name, rate in rates.items()
    ]
    report("workers", rows, ("torch", "optuna"))


if __name__ == "__main__":
    main()
