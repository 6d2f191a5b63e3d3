"""Searches of trained decoders by replay: how much of the front is found with a part of the training compute.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.replay [--rows NAME ...] [--seeds 20] [--workers 2]

The table is that of `benchmarks.trained`: a study may propose only what is in it, and is told what was measured there
instead of training. All else is the study's own path (`search.session`), with rungs or without. A study is told the
losses of one seed of each member, drawn anew for each study, as a real one would train; what it claims, the members
that it trained to the end, is scored by the means over seeds: their hypervolume as a share of that of the whole table,
up to the nadir of the table's front. Compute is that of the steps that were trained, as a share of what one seed of
every member takes.

Samplers of Optuna work on all choices as a flat space, those that a member does not reach included. What they propose
is taken for the nearest member that is new: by the number of choices that differ, one that only one of the two reaches
among them, numbers by their distance. They are told what ours is told: the losses at the end, or with rungs those that
are foretold. Seeds from 1000 on were used while settings were compared, and are not reported. Runs are added to those
of ``benchmarks/results/replay.json`` whose table was the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from functools import cached_property
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
import torch
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.trial import create_trial

from benchmarks import trained
from search.frontier.hypervolume import hypervolume, non_dominated
from search.session import Asked, OpenStudy
from search.sources import History
from search.study import load
from spaces import space as spaces
from spaces.candidate import Candidate
from spaces.encoding import encode, encode_all
from spaces.ranges import Range
from spaces.space import Space

Reals = NDArray[np.float64]
Runs = dict[str, dict[str, dict[str, Any]]]  # of a row, of a seed

RESULTS = Path(__file__).parent / "results/replay.json"
CHECKPOINTS = (0.05, 0.10, 0.15, 0.25)
BAR = 0.15
TUNING = 1000  # seeds from here on are not reported
RUNGS = "{least: 25, reduction: 2, finalists: 128}"  # where the table has validations; on and on, as the budget lasts
POPULATION = 10  # of NSGA-II; 15 % of the compute pays for some twenty whole trainings
COSTS = ("parameters", "flops")
SAMPLERS = ("frontier", "random", "tpe", "gp", "nsga2")

STUDY = """
archstudy: 1
name: replay
space: {space}
data: {{kind: text}}
train: {{steps: {steps}, batch: {batch}, length: {length}}}
objectives: [validation_loss, {cost}]
fidelities: {rungs}
sampler: {sampler}
seed: {seed}
trials: {trials}
storage: journal
"""


class Row(NamedTuple):
    """One line of the table."""

    sampler: str
    rungs: bool
    cost: str

    @property
    def name(self) -> str:
        return f"{self.sampler}, {'rungs' if self.rungs else 'to the end'}, {self.cost}"


ROWS = {row.name: row for cost in COSTS for s in SAMPLERS for rungs in (True, False) for row in [Row(s, rungs, cost)]}


class Table:
    """The trained members, by their hashes."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in rows:
            self.runs[row["hash"]].append(row)
        self.hashes = list(self.runs)
        first = [runs[0] for runs in self.runs.values()]
        self.digest = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16]
        self.ends = np.array([np.mean([run["validations"][-1][1] for run in runs]) for runs in self.runs.values()])
        self.costs = {cost: np.array([row[cost] for row in first], np.float64) for cost in COSTS}
        compute = np.array([row["training_flops"] for row in first], np.float64)
        self.compute = dict(zip(self.hashes, (compute / compute.sum()).tolist(), strict=True))

    @cached_property
    def space(self) -> Space:
        return spaces.load(trained.SPACE)

    @cached_property
    def listed(self) -> Reals:
        return encode_all([self.space.candidate(runs[0]["choices"]) for runs in self.runs.values()])

    def points(self, cost: str) -> Reals:
        return np.column_stack([self.ends, self.costs[cost]])

    def score(self, found: set[str], cost: str) -> float:
        """Hypervolume of some members as a share of that of all."""
        points = self.points(cost)
        nadir = points[non_dominated(points)].max(axis=0)
        some = points[[number for number, key in enumerate(self.hashes) if key in found]]
        return hypervolume(some, nadir) / hypervolume(points, nadir)


class Flat:
    """A sampler that knows nothing of the space, as a source of members of the table (`search.sources`).

    Args:
        sampler: of Optuna; None draws at random.
    """

    def __init__(self, table: Table, sampler: BaseSampler | None) -> None:
        self.table, self.sampler = table, sampler
        self.options: dict[str, tuple[float, ...]] = {}
        self.distributions: dict[str, BaseDistribution] = {}
        self.ordered = np.zeros(len(table.space.slots), np.bool_)
        for place, slot in enumerate(table.space.slots):
            if isinstance(slot.node, Range):
                self.options[str(place)] = tuple(slot.node.numbers())
            else:
                self.options[str(place)] = tuple(range(len(slot.node.options)))
            self.ordered[place] = isinstance(slot.node, Range) or slot.path == "dims.width"
            count = len(self.options[str(place)])
            self.distributions[str(place)] = (
                IntDistribution(0, count - 1) if self.ordered[place] else CategoricalDistribution(tuple(range(count)))
            )
        self.asked: dict[bytes, tuple[dict[str, Any], dict[str, Any]]] = {}  # what was proposed: choices, attributes

    def __call__(self, history: History, seed: int) -> Iterator[Candidate]:
        seen = {vector.tobytes() for vector in np.concatenate([history.vectors, history.pending])}
        new = np.array([vector for vector in self.table.listed if vector.tobytes() not in seen])
        if self.sampler is None:
            np.random.default_rng(seed).shuffle(new)
            yield from map(self._member, new)
        elif len(new):
            params, attributes = self._proposed(history)
            member = new[np.argmin(self._distances(params, new))]
            for number, (name, options) in enumerate(self.options.items()):
                if not np.isnan(member[number]):
                    params[name] = options.index(member[number])
            self.asked[member.tobytes()] = params, attributes
            yield self._member(member)

    def _proposed(self, history: History) -> tuple[dict[str, Any], dict[str, Any]]:
        study = optuna.create_study(directions=["minimize"] * history.values.shape[1], sampler=self.sampler)
        for vector, values in zip(history.vectors, history.values, strict=True):
            params, attributes = self.asked[vector.tobytes()]
            study.add_trial(
                create_trial(
                    params=params, distributions=self.distributions, values=list(values), system_attrs=attributes
                )
            )
        trial = study.ask(self.distributions)
        frozen = study.get_trials(deepcopy=False)[trial.number]
        return dict(frozen.params), dict(frozen.system_attrs)

    def _distances(self, params: dict[str, Any], members: Reals) -> Reals:
        """Of a proposal to members: a choice that only one of the two reaches counts 1, a number at most 1."""

        def pick(number: int) -> float:
            return self.options[str(number)][params[str(number)]]

        proposed = encode(self.table.space.walk(pick))
        spans = np.array([max(options) - min(options) for options in self.options.values()])
        each = np.where(self.ordered, np.abs(members - proposed) / spans, members != proposed)
        reached = ~np.isnan(members), ~np.isnan(proposed)
        each = np.where(reached[0] & reached[1], each, reached[0] ^ reached[1])
        found: Reals = each.sum(axis=1)
        return found

    def _member(self, vector: Reals) -> Candidate:
        number = next(n for n, one in enumerate(self.table.listed) if one.tobytes() == vector.tobytes())
        return self.table.space.candidate(self.table.runs[self.table.hashes[number]][0]["choices"])


def optunas(name: str, seed: int) -> BaseSampler | None:
    match name:
        case "tpe":
            return TPESampler(seed=seed, multivariate=True)
        case "gp":
            return GPSampler(seed=seed)
        case "nsga2":
            return NSGAIISampler(seed=seed, population_size=POPULATION)
    return None


def run(table: Table, row: Row, seed: int, most: float = CHECKPOINTS[-1]) -> dict[str, Any]:
    """One study: its score at each checkpoint; until the bar members started and ended; CPU seconds a proposal."""
    generator = np.random.default_rng([seed, 2])
    losses = {
        key: {step: loss for step, loss, _ in runs[generator.integers(len(runs))]["validations"]}
        for key, runs in table.runs.items()
    }
    costs = dict(zip(table.hashes, table.costs[row.cost].tolist(), strict=True))
    spent, asking, ended = 0.0, 0.0, []  # ended: compute so far, hash
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "study.yaml"
        file.write_text(
            STUDY.format(
                space=trained.SPACE, steps=trained.STEPS, batch=trained.BATCH, length=trained.LENGTH, cost=row.cost,
                rungs=RUNGS if row.rungs else "null", sampler="frontier" if row.sampler == "frontier" else "random",
                seed=seed, trials=len(table.hashes),
            )
        )  # fmt: skip
        with closing(OpenStudy(load(file), Path(folder) / "run")) as study:
            proposer = study.proposer
            levels = proposer.schedule.levels
            sources = proposer.sources
            if row.sampler == "frontier":
                sources.members.listed = table.listed
            else:
                source = Flat(table, optunas(row.sampler, seed))
                sources.of = lambda _: source
            starts = []
            while True:
                start = time.process_time()
                asked = study.ask()
                asking += time.process_time() - start
                if not isinstance(asked, Asked):
                    break
                key, rung = asked.proposal.spec.full, asked.proposal.rung
                steps = levels[rung] - (levels[rung - 1] if rung else 0)
                spent += table.compute[key] * steps / trained.STEPS
                if spent > most:
                    break
                if not asked.proposal.further:
                    starts.append(spent)
                if rung == len(levels) - 1:
                    ended.append((spent, key))
                study.tell(asked, [losses[key][levels[rung]], costs[key]])
    return {
        **{said(share): table.score({key for at, key in ended if at <= share}, row.cost) for share in CHECKPOINTS},
        "started": sum(at <= BAR for at in starts),
        "ended": sum(at <= BAR for at, _ in ended),
        "seconds": asking / max(len(starts), 1),
    }


def lines(runs: Runs) -> Iterator[dict[str, Any]]:
    for name, of_row in runs.items():
        if not of_row:
            continue
        row: dict[str, Any] = {"row": name, "seeds": len(of_row)}
        for share in map(said, CHECKPOINTS):
            row[share] = float(np.mean([one[share] for one in of_row.values()]))
        row[f"{said(BAR)}, low decile"] = float(np.quantile([one[said(BAR)] for one in of_row.values()], 0.1))
        for figure in ("started", "ended", "seconds"):
            row[figure] = float(np.mean([one[figure] for one in of_row.values()]))
        yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="of the seeds; nothing is kept of those from 1000 on")
    parser.add_argument("--workers", type=int, default=1, help="studies at a time")
    args = parser.parse_args()
    table = Table(trained.rows())
    stored = json.loads(RESULTS.read_text()) if RESULTS.exists() and args.first < TUNING else {}
    runs: Runs = stored["runs"] if stored.get("table") == table.digest else {}
    todo = [
        (name, seed) for seed in range(args.first, args.first + args.seeds) for name in args.rows
        if str(seed) not in runs.setdefault(name, {})
    ]  # fmt: skip
    with ProcessPoolExecutor(args.workers, get_context("spawn"), initializer=_alone) as pool:
        running = {pool.submit(run, table, ROWS[name], seed): (name, str(seed)) for name, seed in todo}
        for future in as_completed(running):
            name, key = running[future]
            runs[name][key] = future.result()
            if args.first < TUNING:
                _write(runs, table)
    for line in lines(runs):
        print({key: round(value, 4) if isinstance(value, float) else value for key, value in line.items()})


def _alone() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def _write(runs: Runs, table: Table) -> None:
    data = {
        "benchmark": "replay",
        "command": "python -m benchmarks.replay",
        "versions": {package: version(package) for package in ("numpy", "scipy", "optuna", "torch")},
        "table": table.digest,
        "members": len(table.hashes),
        "runs of members": sum(map(len, table.runs.values())),
        "rows": list(lines(runs)),
        "runs": runs,
    }
    RESULTS.write_text(json.dumps(data, indent=1) + "\n")


def said(share: float) -> str:
    return f"{share:.0%}"


if __name__ == "__main__":
    main()
