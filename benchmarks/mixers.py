"""Which mixer learns what: each of the space `mixers` on synthetic tasks and on text, at equal parameters.

    python -m benchmarks.mixers                     # goes on where it was; stop it whenever you like
    python -m benchmarks.mixers --workers 8         # so many at a time, one thread each
    python -m benchmarks.mixers --report            # what there is: mean and spread over seeds

All layers of a decoder have the same mixer, and the inner width of its channel mixers makes up for the mixer's own
parameters. Each run is a row of ``benchmarks/results/mixers.jsonl``, written when it ends. One learning rate for all,
the same steps for all: what is told is how soon a mixer learns a task, not how far it gets.
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
from typing import Any, NamedTuple

import numpy as np
import torch

import compiler
from archspec.source import parse
from archspec.spec import Spec
from benchmarks.proxies import TASKS
from benchmarks.timing import report
from search.cost.price import price
from search.data.batches import Data
from search.recipe import Recipe
from search.train import train
from spaces import space as spaces

TABLE = Path(__file__).parent / "results" / "mixers.jsonl"
SEEDS = 3
PARAMETERS = 160_000  # of every decoder, as near as whole widths allow
LOOPED = "graph[1].body[*]"
TASK = Recipe(steps=300, batch=16, learning_rate=3e-3, validation_batches=16)
RECIPES = {name: (text, TASK) for name, text in TASKS.items()} | {
    "text": ("text", Recipe(steps=300, batch=8, length=128, learning_rate=3e-3))
}
ACCURACY = [name for name in TASKS if name != "memorisation"]  # memorisation is learned by all: its loss tells more


@cache
def decoder(mixer: str) -> Spec:
    """The decoder of a mixer whose parameters come nearest to those of all."""
    space = spaces.load("mixers").freeze({f"{LOOPED}.mixer": mixer})
    low, high = 8, 512
    while high - low > 1:
        middle = (low + high) // 2
        few = price(_of_width(space, middle)).parameters <= PARAMETERS
        low, high = (middle, high) if few else (low, middle)
    return min((_of_width(space, width) for width in (low, high)), key=lambda s: abs(price(s).parameters - PARAMETERS))


def _of_width(space: spaces.Space, width: int) -> Spec:
    return space.freeze({f"{LOOPED}.channel.hidden": width}).default().spec


@cache
def mixers() -> list[str]:
    """The options of the space."""
    slot = next(slot for slot in spaces.load("mixers").slots if slot.every == f"{LOOPED}.mixer")
    return list(slot.node.labels)


class Run(NamedTuple):
    """One training."""

    mixer: str
    task: str
    seed: int
    text: str | None

    def row(self) -> dict[str, Any]:
        torch.set_num_threads(1)
        said, recipe = RECIPES[self.task]
        if self.task == "text" and self.text is not None:
            said = f"{{kind: text, path: {self.text}}}"
        spec = decoder(self.mixer)
        data = Data.read(parse(f"data: {said}", self.task)["data"], self.task, None).open(spec.interface)
        if self.task != "text":
            recipe = recipe.model_copy(update={"length": data.task.length})  # type: ignore[attr-defined]
        result = train(compiler.compile(spec, seed=self.seed), data, recipe.model_copy(update={"seed": self.seed}))
        return {
            "mixer": self.mixer, "task": self.task, "seed": self.seed, "hash": spec.full,
            "parameters": price(spec).parameters, "loss": round(result.validation_loss, 4),
            "accuracy": result.validation_accuracy, "cpu_seconds": round(result.cpu_seconds, 2),
            "data": data.fingerprint, "torch": torch.__version__,
        }  # fmt: skip


def rows(path: Path = TABLE) -> list[dict[str, Any]]:
    """The runs that are there, of specs as they are now."""
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [row for row in found if row["mixer"] in mixers() and row["hash"] == decoder(row["mixer"]).full]


def table(workers: int, text: str | None, out: Path) -> None:
    """Trains what is missing."""
    there = {(row["mixer"], row["task"], row["seed"]) for row in rows(out)}
    todo = [
        Run(mixer, task, seed, text) for seed in range(SEEDS) for task in RECIPES for mixer in mixers()
        if (mixer, task, seed) not in there
    ]  # fmt: skip
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        running = [pool.submit(run.row) for run in todo]
        for done, future in enumerate(as_completed(running), 1):
            row = future.result()
            with out.open("a") as file:
                file.write(json.dumps(row) + "\n")
                file.flush()
                os.fsync(file.fileno())
            said = f"{row['mixer']}, {row['task']}, seed {row['seed']}: {row['loss']}, {row['accuracy']:.1%}"
            print(f"{time.strftime('%H:%M:%S')} {done} of {len(todo)}, {row['cpu_seconds']:.0f} s, {said}", flush=True)


def summary(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each mixer: mean and standard deviation over seeds, of accuracy in % or, of text, of the loss."""
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in found:
        values[row["mixer"], row["task"]].append(100 * row["accuracy"] if row["task"] in ACCURACY else row["loss"])
    of = {row["mixer"]: row for row in found}
    seconds = defaultdict(list)
    for row in found:
        if row["task"] == "text":
            seconds[row["mixer"]].append(row["cpu_seconds"])

    def told(mixer: str, task: str) -> str:
        some = values.get((mixer, task), [])
        digits = 1 if task in ACCURACY else 3
        spread = f" ± {np.std(some, ddof=1):.{digits}f}" if len(some) > 1 else ""
        return f"{np.mean(some):.{digits}f}{spread}" if some else ""

    return [
        {"mixer": mixer, "parameters": of[mixer]["parameters"], **{task: told(mixer, task) for task in RECIPES},
         "CPU s, text": float(np.mean(seconds[mixer])) if seconds[mixer] else None}
        for mixer in mixers() if mixer in of
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--text", help="a folder with the sources of the library of Python 3.11; by default, one's own")
    parser.add_argument("--out", type=Path, default=TABLE)
    args = parser.parse_args()
    if not args.report:
        table(args.workers, args.text, args.out)
    report("mixers", summary(rows(args.out)))


if __name__ == "__main__":
    main()
