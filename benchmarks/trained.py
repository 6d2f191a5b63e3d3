"""Trains members of a small space to the end, seed after seed: a table on which searches are replayed.

    python -m benchmarks.trained                    # goes on where it was; stop it whenever you like
    python -m benchmarks.trained --workers 8        # so many at a time, one thread each
    python -m benchmarks.trained --report           # what there is: spread between architectures, noise of seeds

Each run is a row of ``benchmarks/results/trained.jsonl``, written when it ends: its choices, seed, and validation
loss on the way. All architectures are trained with one seed before any is with the next.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch

import compiler
from archspec.spec import Spec
from benchmarks.timing import report
from search.cost import price
from search.data.text import Text
from search.recipe import Recipe
from search.train import train
from spaces import space as spaces
from spaces.candidate import Candidate

TABLE = Path(__file__).parent / "results" / "trained.jsonl"
SPACE, MODELS, SEEDS = "small_decoder", 128, 4
STEPS, BATCH, LENGTH, EVERY = 400, 8, 128, 25
RATE = 1e-2  # at most; the law was fitted to models a hundred times as large


def recipe(spec: Spec, seed: int) -> Recipe:
    """The learning rate is that of the step law (Li et al. 2025, arXiv 2503.04715): models are compared, not rates."""
    cost = price(spec, length=LENGTH)
    inner = cost.parameters - 256 * spec.graph.nodes[0].output.width
    rate = 1.79 * inner**-0.713 * (STEPS * BATCH * LENGTH) ** 0.307
    return Recipe(
        steps=STEPS, batch=BATCH, length=LENGTH, learning_rate=min(RATE, rate), seed=seed, evaluate_every=EVERY
    )


@cache
def members() -> list[Candidate]:
    """The architectures: random members of the space, none twice."""
    space, random, found = spaces.load(SPACE), Random(0), {}
    while len(found) < MODELS:
        candidate = space.sample(random)
        found.setdefault(candidate.spec.full, candidate)
    return list(found.values())


def rows(path: Path = TABLE) -> list[dict[str, Any]]:
    """The runs that are there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class Run(NamedTuple):
    """One training."""

    member: int
    seed: int
    text: str | None

    def row(self) -> dict[str, Any]:
        torch.set_num_threads(1)
        candidate = members()[self.member]
        spec = candidate.spec
        how, data = recipe(spec, self.seed), Text(path=self.text).open(spec.interface)
        result = train(compiler.compile(spec, seed=self.seed), data, how)
        cost = price(spec, length=LENGTH)
        return {
            "hash": spec.full, "choices": candidate.values, "seed": self.seed, "steps": STEPS,
            "learning_rate": how.learning_rate,
            "validations": [[step, round(loss, 5), round(right, 5)] for step, loss, right in result.validations],
            "parameters": cost.parameters, "flops": cost.forward, "training_flops": cost.training_step,
            "cpu_seconds": round(result.cpu_seconds, 2), "data": data.fingerprint, "torch": torch.__version__,
        }  # fmt: skip


def table(workers: int, text: str | None, out: Path) -> None:
    """Trains what is missing."""
    there = {(row["hash"], row["seed"]) for row in rows(out)}
    hashes = [one.spec.full for one in members()]
    todo = [(n, seed) for seed in range(SEEDS) for n in range(MODELS) if (hashes[n], seed) not in there]
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        running = [pool.submit(Run(number, seed, text).row) for number, seed in todo]
        for done, future in enumerate(as_completed(running), 1):
            row = future.result()
            with out.open("a") as file:
                file.write(json.dumps(row) + "\n")
                file.flush()
                os.fsync(file.fileno())
            said = f"seed {row['seed']}: {row['validations'][-1][1]:.4f}, {row['parameters']:,} parameters"
            print(f"{time.strftime('%H:%M:%S')} {done} of {len(todo)}, {row['cpu_seconds']:.0f} s, {said}", flush=True)


def noise(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Spread of the means between architectures, noise of a seed and of a mean, all as standard deviations in nats."""
    losses = defaultdict(list)
    for row in found:
        losses[row["hash"]].append(row["validations"][-1][1])
    several = [values for values in losses.values() if len(values) > 1]
    means = np.array([np.mean(values) for values in losses.values()])
    seed = float(np.sqrt(np.mean([np.var(values, ddof=1) for values in several]))) if several else float("nan")
    each = float(np.mean([len(values) for values in losses.values()]))
    spread = float(means.std(ddof=1))
    return {
        "what": "validation loss, nats",
        "architectures": len(losses),
        "seeds each": each,
        "best": float(means.min()),
        "worst": float(means.max()),
        "spread between architectures": spread,
        "noise of a seed": seed,
        "noise of a mean": seed / each**0.5,
        "noise / spread": seed / each**0.5 / spread,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--text", help="a folder with the sources of the library of Python 3.11; by default, one's own")
    parser.add_argument("--out", type=Path, default=TABLE)
    args = parser.parse_args()
    if not args.report:
        table(args.workers, args.text, args.out)
    report("trained", [noise(rows(args.out))])


if __name__ == "__main__":
    main()
