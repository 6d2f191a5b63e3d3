"""A race of samplers on GPT-S, where the best front is known: hypervolume after 50, 100 and 200 evaluations.

    python -m benchmarks.frontier hwgpt_s.npz [--rows NAME ...] [--seeds 20]

The problem and its score are `benchmarks.hwgpt_front`; the file is that of `benchmarks.hwgpt`. Runs are added to those
that ``benchmarks/results/frontier.json`` has, and none is repeated, so that the race may be run in pieces. Where
latency is free it may be asked of any member; perplexity is known of evaluated members only. Ours is told the reference
of the score, as a search for hypervolume is; in the row ``untold`` it goes for the whole front instead. Noise is on the
perplexity that a search is told, never on the score. Times are CPU time of one thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
import torch
from numpy.typing import NDArray

from archspec.errors import SpecError
from benchmarks.hwgpt import HEADS, MOST, RATIOS, WIDTHS, space, vectors
from benchmarks.hwgpt_front import DEPTHS, Truth, archs_of
from search.cost.table import Table
from search.frontier import Frontier, Members, batch_size
from search.frontier.evolution import evolve, survivors
from spaces.encoding import decode

Reals = NDArray[np.float64]
Archs = NDArray[np.int64]
Tell = Callable[[Archs], Reals]  # evaluates: architectures to what the search is told of them, [n, 2]

RESULTS = Path(__file__).parent / "results/frontier.json"
CHECKPOINTS = (50, 100, 200)
POPULATION, SAMPLE = 50, 10  # of regularised evolution, as in its paper's smaller setting


class Row(NamedTuple):
    """One line of the table."""

    method: str
    device: str = "a100"
    free: bool = False
    noise: float = 0.0
    replay: bool = False
    told: bool = True
    seeds: int = 20
    count: int = 200


ROWS = {
    "random": Row("random"),
    "nsga2": Row("nsga2"),
    "tpe": Row("tpe"),
    "regularised": Row("regularised"),
    "gp": Row("gp", seeds=1, count=100),
    "exact": Row("exact", free=True, seeds=1),
    "free": Row("frontier", free=True),
    "paid": Row("frontier"),
    "untold": Row("frontier", free=True, told=False),
    "noise_0.3": Row("frontier", free=True, noise=0.003),
    "noise_1": Row("frontier", free=True, noise=0.01),
    "rtx2080": Row("frontier", "rtx2080", free=True),
    "cpu_alldlc": Row("frontier", "cpu_alldlc", free=True),
    **{f"replay_{device}": Row("frontier", device, True, replay=True) for device in ("a100", "rtx2080", "cpu_alldlc")},
}


class Search:
    """The truth as members of the library's space, priced by its tables."""

    def __init__(self, truth: Truth, row: Row) -> None:
        self.truth, self.row = truth, row
        self.prices = Table(space(), batch=8)
        self.known = {arch.tobytes(): number for number, arch in reversed(list(enumerate(truth.archs)))}

    def figures(self, archs: Archs) -> Reals:
        """True perplexity and latency; those measured, in a replay."""
        if self.row.replay:
            return self.truth.measured[[self.known[arch.tobytes()] for arch in archs]]
        return self.truth.figures(archs)

    def cheap(self, members: Reals) -> dict[str, Reals]:
        prices = self.prices.price(members)
        found = {"parameters": prices.parameters.astype(float), "flops": prices.forward.astype(float)}
        if self.row.free:
            found["latency"] = self.figures(archs_of(members))[:, 1]
        if self.row.method == "exact":
            found["perplexity"] = -found["parameters"]
        return found

    def members(self) -> Members:
        listed = vectors(self.truth.archs) if self.row.replay else None
        return Members(space(), ("perplexity", "latency"), self.cheap, listed=listed)


def ours(search: Search, tell: Tell, seed: int, count: int) -> float:
    told = dict(zip(("perplexity", "latency"), search.truth.high.tolist(), strict=True)) if search.row.told else {}
    frontier = Frontier(search.members(), seed, reference=told if search.row.method == "frontier" else None)
    spent = 0.0
    while (done := len(frontier.vectors)) < count:
        start = time.process_time()
        asked = frontier.ask(min(batch_size(done), count - done))
        spent += time.process_time() - start
        for vector in asked:
            decode(space(), vector)  # a member, or an error
        frontier.tell(asked, tell(archs_of(asked))[:, : len(frontier.paid)])
    return spent


def random(search: Search, tell: Tell, seed: int, count: int) -> float:
    start = time.process_time()
    tell(_random(np.random.default_rng(seed), count))
    return time.process_time() - start


def _random(generator: np.random.Generator, count: int) -> Archs:
    return _cut(_uncut(generator, count))


def _uncut(generator: np.random.Generator, count: int) -> Archs:
    dims = [generator.choice(options, count) for options in (WIDTHS, DEPTHS, (0, 1))]
    return np.column_stack([*dims, *(generator.choice(options, (count, MOST)) for options in (HEADS, RATIOS))])


def _cut(archs: Archs) -> Archs:
    on = np.arange(MOST) < archs[:, 1:2]
    archs[:, 3:] *= np.concatenate([on, on], axis=1)
    return archs


def regularised(search: Search, tell: Tell, seed: int, count: int) -> float:
    """Real et al. 2019, arXiv 1802.01548; the best of a sample is the least crowded of its front."""
    generator = np.random.default_rng(seed)
    start = time.process_time()
    archs = _random(generator, min(POPULATION, count))
    figures = tell(archs)
    while len(archs) < count:
        living = len(archs) - POPULATION + generator.choice(POPULATION, SAMPLE, replace=False)
        parent = archs[living[survivors(figures[living], 1)[0]]]
        child, other = parent.copy(), _uncut(generator, 1)[0]
        place = int(generator.choice([0, 1, 2, *(3 + np.flatnonzero(parent[3:]))]))
        options = (WIDTHS, DEPTHS, (0, 1))[place] if place < 3 else HEADS if place < 3 + MOST else RATIOS
        child[place] = generator.choice([one for one in options if one != parent[place]])
        child = _cut(np.where(child > 0, child, np.where(np.arange(len(child)) == 2, 0, other))[None])
        archs, figures = np.concatenate([archs, child]), np.concatenate([figures, tell(child)])
    return time.process_time() - start


def optunas(search: Search, tell: Tell, seed: int, count: int) -> float:
    samplers = optuna.samplers
    sampler = {
        "nsga2": lambda: samplers.NSGAIISampler(seed=seed, population_size=20),
        "tpe": lambda: samplers.TPESampler(seed=seed),
        "gp": lambda: samplers.GPSampler(seed=seed, deterministic_objective=True),
    }[search.row.method]()
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    start = time.process_time()
    for _ in range(count):
        trial = study.ask()
        names = [("width", WIDTHS), ("layers", DEPTHS), ("bias", (0, 1))]
        names += [(f"heads{layer}", HEADS) for layer in range(MOST)]
        names += [(f"ratio{layer}", RATIOS) for layer in range(MOST)]
        if search.row.method == "gp":  # numbers in their order, which it makes use of
            chosen = [options[trial.suggest_int(name, 0, len(options) - 1)] for name, options in names]
        else:
            chosen = [trial.suggest_categorical(name, options) for name, options in names]
        arch = np.array([chosen])
        study.tell(trial, tell(_cut(arch))[0].tolist())
    return time.process_time() - start


METHODS = {"frontier": ours, "exact": ours, "random": random, "regularised": regularised}


def run(truth: Truth, row: Row, seed: int) -> dict[str, Any]:
    """One search: hypervolume after so many evaluations, repeated ones, CPU seconds a proposal."""
    search, generator = Search(truth, row), np.random.default_rng([seed, 1])
    evaluated: list[Archs] = []

    def tell(archs: Archs) -> Reals:
        evaluated.append(archs)
        figures = search.figures(archs)
        figures[:, 0] *= np.exp(row.noise * generator.standard_normal(len(archs)))
        return figures

    infeasible = 0
    try:
        spent = METHODS.get(row.method, optunas)(search, tell, seed, row.count)
    except SpecError:
        infeasible, spent = 1, 0.0
    archs = np.concatenate(evaluated)
    figures = search.figures(archs)
    return {
        **{str(count): truth.score(figures[:count]) for count in CHECKPOINTS if count <= row.count},
        "repeated": 1 - len({arch.tobytes() for arch in archs}) / len(archs),
        "infeasible": infeasible,
        "seconds": spent / len(archs),
    }


def best(truth: Truth, row: Row) -> dict[int, float]:
    """The best that so many evaluations can reach: exact in a replay, else of the front of a long evolution."""
    search = Search(truth, row._replace(free=True))
    if row.replay:
        return truth.best(truth.measured, list(CHECKPOINTS))
    members = search.members()
    _, figures = evolve(
        members.draw(np.random.default_rng(0), 4096), lambda these: truth.figures(archs_of(these)),
        members.mutate, members.cross, np.random.default_rng(1), population=400, offspring=400, generations=400,
    )  # fmt: skip
    return truth.best(figures, list(CHECKPOINTS))


def table(runs: dict[str, dict[str, dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    for name, of_row in runs.items():
        seeds = [one for seed, one in of_row.items() if seed != "best"]
        row: dict[str, Any] = {"row": name, "seeds": len(seeds)}
        for count in map(str, CHECKPOINTS):
            values = [one[count] for one in seeds if count in one]
            if values:
                row[count] = round(statistics.mean(values), 4)
                row[f"{count} ±"] = round(statistics.pstdev(values), 4)
                if "best" in of_row:
                    row[f"{count} of best %"] = round(100 * statistics.mean(values) / of_row["best"][count], 2)
        for figure in ("repeated", "infeasible", "seconds"):
            row[figure] = round(statistics.mean(one[figure] for one in seeds), 4)
        yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="the measurements, .npz")
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seeds", type=int, help="at most so many of each row")
    parser.add_argument("--best", action="store_true", help="also the best possible, by a long evolution")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    runs = json.loads(RESULTS.read_text())["runs"] if RESULTS.exists() else {}
    truths = {device: Truth(given.path, device) for device in ("a100", "rtx2080", "cpu_alldlc")}
    for seed in range(given.seeds or max(ROWS[name].seeds for name in given.rows)):
        for name in given.rows:
            row, of_row = ROWS[name], runs.setdefault(name, {})
            if seed < row.seeds and str(seed) not in of_row:
                of_row[str(seed)] = run(truths[row.device], row, seed)
                _write(runs)
            if "best" not in of_row and row.free and (row.replay or given.best):
                of_row["best"] = {str(count): value for count, value in best(truths[row.device], row).items()}
                _write(runs)
    _write(runs)
    for line in table(runs):
        print(line)


def _write(runs: dict[str, Any]) -> None:
    versions = {package: version(package) for package in ("numpy", "scipy", "optuna")}
    data = {
        "benchmark": "frontier",
        "command": "python -m benchmarks.frontier hwgpt_s.npz",
        "versions": versions,
        "rows": list(table(runs)),
        "runs": runs,
    }
    RESULTS.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
