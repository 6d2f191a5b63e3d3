"""What a study costs beside training, per trial: proposing, pricing, recording and saving.

    python -m benchmarks.study [--spaces language_model hw_gpt_s hybrid_attention_convolution]

Proposals are timed in studies that are told a made-up loss instead of being trained, after 10, 50 and 200 trials, 16 in
a row; each part of the program has the time that it spends outside of the parts that it calls. Saving and recording is
what trials of one training step take beyond compiling and training the same candidates without a study. The share of a
study's wall time is computed from the two, for trials whose training takes 5 s. CPU time, one thread; the first
proposal, which also opens tables and draws what scales the features, stands apart.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

import compiler
from benchmarks.timing import report
from search.figures import Figures
from search.frontier import Members, frontier
from search.frontier.surrogates import Surrogate
from search.objectives import Priced
from search.proposals import Proposer
from search.schedule import Schedule
from search.session import Asked, OpenStudy
from search.storage import Record
from search.study import load
from search.train import train
from spaces.encoding import encode

STUDY = """
archstudy: 1
name: overhead
space: {space}
data: {{kind: text}}
train: {{steps: 1, batch: 2, length: 32, validation_batches: 1}}
objectives: [validation_loss, flops]
constraints: [{{kind: parameters, at_most: {most}}}]
trials: 1000
"""
SPACES = {"language_model": 2e6, "hw_gpt_s": 1e9, "hybrid_attention_convolution": 1e9}  # and the most parameters
HISTORIES, TIMED = (10, 50, 200), 16
WARM, TRAINED = 10, 40
SECONDS = 5.0  # of a trial

PARTS: dict[str, list[tuple[Any, str]]] = {
    "encoding": [(Members, "features")],
    "pricing": [(Figures, "_prices"), (Priced, "price")],
    "fit": [(frontier, "choose")],
    "foretelling": [(Surrogate, "bound"), (Surrogate, "draws")],
    "evolution": [(frontier, "evolve"), (Members, "draw")],
    "acquisition": [(frontier, "batch")],
    "record": [
        *((Record, name) for name in ("alone", "stale", "trials", "start")),
        *((Proposer, name) for name in ("_follow", "history")),
        (Schedule, "next"),
    ],
}


class Clock:
    """CPU seconds of each part, outside of the parts that it calls."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self.parts, self.last = ["other"], time.process_time()

    def turn(self) -> None:
        now = time.process_time()
        self.spent[self.parts[-1]] += now - self.last
        self.last = now

    def timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            self.turn()
            self.parts.append(part)
            try:
                return call(*given, **named)
            finally:
                self.turn()
                self.parts.pop()

        return timed


@contextmanager
def clocked() -> Iterator[Clock]:
    clock = Clock()
    with ExitStack() as stack:
        for part, calls in PARTS.items():
            for owner, name in calls:
                stack.enter_context(patch.object(owner, name, clock.timed(part, getattr(owner, name))))
        yield clock


@contextmanager
def opened(space: str) -> Iterator[OpenStudy]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "study.yaml"
        file.write_text(STUDY.format(space=space, most=SPACES[space]))
        with closing(OpenStudy(load(file), Path(folder) / "run")) as study:
            yield study


def proposals(space: str) -> Iterator[dict[str, Any]]:
    """Rows of the table: milliseconds of a proposal in one space."""
    with opened(space) as study:
        effects = np.random.default_rng(0).standard_normal(len(study.space.slots))

        def tell(asked: Asked) -> None:
            flops = study.study.objectives[1].before(asked.proposal.priced)
            vector = np.nan_to_num(encode(study.space.candidate(asked.proposal.params)))
            study.tell(asked, [8 - 0.2 * np.log(flops) + 0.02 * float(effects @ vector) / len(vector) ** 0.5, flops])

        def ask() -> tuple[float, dict[str, float]]:
            with clocked() as clock:
                asked = study.ask()
                clock.turn()
            assert isinstance(asked, Asked)
            tell(asked)
            return sum(clock.spent.values()), clock.spent

        cold, _ = ask()
        for done in range(1, max(HISTORIES) + TIMED):
            if done in HISTORIES:
                found: list[tuple[float, dict[str, float]]] = []
            asked = ask()
            if any(history <= done < history + TIMED for history in HISTORIES):
                found.append(asked)
            if done + 1 - TIMED in HISTORIES:
                times = sorted(time for time, _ in found)
                yield {
                    "space": space,
                    "history": done + 1 - TIMED,
                    "median": statistics.median(times) * 1e3,
                    "mean": statistics.mean(times) * 1e3,
                    "95 %": float(np.quantile(times, 0.95)) * 1e3,
                    **{part: statistics.mean(s.get(part, 0.0) for _, s in found) * 1e3 for part in [*PARTS, "other"]},
                    "first": cold * 1e3,
                }


def recording() -> float:
    """Milliseconds of a trial that are neither its proposal nor its training."""
    trials, alone = [], []
    with opened("language_model") as study:
        for _ in range(TRAINED):
            asked = study.ask()
            assert isinstance(asked, Asked)
            between = time.process_time()
            study.train(asked)
            end = time.process_time()
            spec = asked.proposal.spec
            train(compiler.compile(spec), study.data(spec.interface), study.study.recipe)
            trials.append(end - between)
            alone.append(time.process_time() - end)
    return statistics.median([trial - lone for trial, lone in zip(trials, alone, strict=True)][WARM:]) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spaces", nargs="*", choices=SPACES, default=list(SPACES))
    given = parser.parse_args()
    torch.set_num_threads(1)
    rest = recording()
    rows = []
    for row in (row for space in given.spaces for row in proposals(space)):
        rows.append(row)
        beside = (row["mean"] + rest) / 1e3
        row |= {"saving and recording": rest, "share of 5 s trials, %": 100 * beside / (beside + SECONDS)}
        print({name: value if isinstance(value, str) else round(value, 1) for name, value in row.items()}, flush=True)
    report("study", rows, ("torch", "optuna", "SQLAlchemy", "numpy", "scipy"))


if __name__ == "__main__":
    main()
