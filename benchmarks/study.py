"""What a study costs beside training, per trial: proposing, pricing, recording and saving.

    python -m benchmarks.study

Runs the demo's space with one training step a trial and takes off what compiling and training the same candidates costs
without a study. CPU time, one thread; the trials before the tenth are warm-up.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path

import torch

import compiler
from benchmarks.timing import report
from search.session import Asked, OpenStudy
from search.study import load
from search.train import train

STUDY = """
archstudy: 1
name: overhead
space: language_model
data: {kind: text}
train: {steps: 1, batch: 2, length: 32, validation_batches: 1}
objectives: [validation_loss, flops]
constraints: [{kind: parameters, at_most: 2e6}]
trials: 50
"""
WARM = 10


def main() -> None:
    torch.set_num_threads(1)
    asks, trials, alone = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "study.yaml"
        file.write_text(STUDY)
        with closing(OpenStudy(load(file), Path(folder) / "run")) as study:
            while True:
                start = time.process_time()
                asked = study.ask()
                if not isinstance(asked, Asked):
                    break
                between = time.process_time()
                study.train(asked)
                end = time.process_time()
                spec = asked.proposal.spec
                train(compiler.compile(spec), study.data(spec.interface), study.study.recipe)
                asks.append(between - start)
                trials.append(end - between)
                alone.append(time.process_time() - end)
    ask = statistics.median(asks[WARM:]) * 1e3
    rest = statistics.median([trial - lone for trial, lone in zip(trials, alone, strict=True)][WARM:]) * 1e3
    rows = [
        {"figure": "proposing and pricing", "CPU ms": ask},
        {"figure": "saving and recording", "CPU ms": rest},
        {"figure": "together, per trial", "CPU ms": ask + rest},
    ]
    report("study", rows, ("torch", "optuna", "SQLAlchemy"))


if __name__ == "__main__":
    main()
