"""Which cheap figure ranks trained decoders: zero-cost proxies, synthetic tasks, size, the first training steps.

    python -m benchmarks.proxies                    # goes on where it was; stop it whenever you like
    python -m benchmarks.proxies --report           # the correlations of what there is

The decoders and their losses are those of `benchmarks.trained`. Each figure of one of them is a row of
``benchmarks/results/proxies.jsonl``, written when it is known. Correlations are of ranks, positive where the figure
points the right way: over all decoders, and within strata of equal parameters, where size tells little.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau, rankdata, spearmanr

import compiler
from archspec.source import parse
from archspec.spec import Spec, from_tree
from benchmarks import trained
from benchmarks.timing import report
from search.data.batches import Data, DataSet
from search.data.text import Text
from search.objectives import Objective, Probed
from search.proxies.probing import probed
from search.recipe import Recipe
from search.train import train

TABLE = Path(__file__).parent / "results" / "proxies.jsonl"
PROXIES = sorted(name for name, kind in Objective.kinds().items() if kind.probe is not Objective.probe)
PROBE = Recipe(batch=16, length=128)
TASKS = {
    "in_context_recall": "{kind: in_context_recall, length: 64}",
    "noisy_recall": "{kind: noisy_recall, length: 64}",
    "fuzzy_recall": "{kind: fuzzy_recall, length: 64}",
    "selective_copying": "{kind: selective_copying, copied: 8, length: 64}",
    "compression": "{kind: compression, length: 32}",
    "memorisation": "{kind: memorisation, vocab: 64, length: 32}",
}
STEPS, BATCH = 100, 8
EARLY = (25, 50, 100)  # steps of the training itself
STRATA = 5
DRAWS = 500  # of the bootstrap

Models = dict[str, tuple[Spec, dict[str, Any]]]


def models() -> Models:
    """The trained decoders by hash in a random order: the spec, and a row whose losses are means over seeds."""
    rows = defaultdict(list)
    for row in trained.rows():
        rows[row["hash"]].append(row)
    specs = {one.spec.full: one.spec for one in trained.members()}
    order = sorted(rows)
    Random(0).shuffle(order)
    found: Models = {}
    for key in order:
        first = rows[key][0]
        losses = np.mean([[loss for _, loss, _ in row["validations"]] for row in rows[key]], axis=0)
        steps = [step for step, _, _ in first["validations"]]
        spec = from_tree(parse(first["spec"], key)) if "spec" in first else specs[key]
        found[key] = spec, {**first, "losses": dict(zip(steps, losses.tolist(), strict=True))}
    return found


def known() -> dict[tuple[str, str], dict[str, Any]]:
    """The figures that are there, by hash and name."""
    rows = [json.loads(line) for line in TABLE.read_text().splitlines()] if TABLE.exists() else []
    return {(row["hash"], row["figure"]): row for row in rows}


def proxy(name: str, spec: Spec, row: dict[str, Any]) -> dict[str, Any]:
    """One proxy's value, None where the decoder has no such thing."""
    looked_at = replace(_built(spec))  # what one proxy keeps is not given to the next
    start = time.process_time()
    try:
        value = Objective.read(name, name, None).probe(looked_at)
    except ValueError:
        value = None
    return {"value": value, "cpu_seconds": round(time.process_time() - start, 3)}


_text: list[DataSet] = []


@lru_cache(maxsize=1)
def _built(spec: Spec) -> Probed:
    if not _text:  # all members of the space have one interface
        _text.append(Text().open(spec.interface))
    return probed(spec, _text[0], PROBE)


def task(name: str, spec: Spec, row: dict[str, Any]) -> dict[str, Any]:
    """What is left of a task after a short training, at the learning rate of the decoder's own."""
    data = Data.read(parse(f"data: {TASKS[name]}", name)["data"], name, None).open(spec.interface)
    length = data.task.length  # type: ignore[attr-defined]
    how = Recipe(steps=STEPS, batch=BATCH, length=length, learning_rate=row["learning_rate"], validation_batches=8)
    start = time.process_time()
    result = train(compiler.compile(spec, seed=0), data, how)
    taken = round(time.process_time() - start, 3)
    return {"value": result.validation_loss, "accuracy": result.validation_accuracy, "cpu_seconds": taken}


def measure() -> None:
    """Computes what is missing: proxies of all decoders, then all tasks of one decoder after another."""
    there, all_models = known(), models()
    todo: list[tuple[str, str, Callable[..., dict[str, Any]]]] = [
        *((key, name, proxy) for key in all_models for name in PROXIES),
        *((key, name, task) for key in all_models for name in TASKS),
    ]
    todo = [one for one in todo if one[:2] not in there]
    for number, (key, name, figure) in enumerate(todo, 1):
        row = {"hash": key, "figure": name, **figure(name, *all_models[key])}
        with TABLE.open("a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        print(f"{number} of {len(todo)}: {name} {row['value']}, {row['cpu_seconds']} s", flush=True)


def figures() -> Iterator[tuple[str, dict[str, float], float | None]]:
    """Each figure with its values by hash, turned so that more is better, and its median CPU seconds."""
    there, all_models = known(), models()
    rows = {key: row for key, (_, row) in all_models.items()}
    for name in ("parameters", "flops"):
        yield name, {key: float(row[name]) for key, row in rows.items()}, None
    for name in PROXIES:
        found = {key: there[key, name] for key in rows if there.get((key, name), {}).get("value") is not None}
        if found:
            yield name, {key: row["value"] for key, row in found.items()}, _median(found)
    for name in TASKS:
        found = {key: there[key, name] for key in rows if (key, name) in there}
        if found:
            yield f"{name}, accuracy", {key: row["accuracy"] for key, row in found.items()}, _median(found)
            yield f"{name}, loss", {key: -row["value"] for key, row in found.items()}, _median(found)
    whole = [key for key in rows if all((key, name) in there for name in TASKS)]
    if whole:
        ranks = sum(rankdata([-there[key, name]["value"] for key in whole]) for name in TASKS)
        seconds = sum(there[key, name]["cpu_seconds"] for key in whole for name in TASKS) / len(whole)
        yield "all tasks, mean rank of losses", dict(zip(whole, ranks.tolist(), strict=True)), seconds
    for step in EARLY:
        seconds = float(np.median([row["cpu_seconds"] * step / row["steps"] for row in rows.values()]))
        yield f"loss after {step} steps", {key: -row["losses"][step] for key, row in rows.items()}, seconds


def _median(rows: dict[str, dict[str, Any]]) -> float:
    return float(np.median([row["cpu_seconds"] for row in rows.values()]))


def correlations(values: np.ndarray, losses: np.ndarray, sizes: np.ndarray) -> dict[str, float]:
    """Of ranks: over all, and the mean within strata of equal numbers of models of like size."""
    strata = np.array_split(np.argsort(sizes, kind="stable"), STRATA)
    return {
        "Spearman": _rank(spearmanr, values, losses),
        "Kendall": _rank(kendalltau, values, losses),
        "Spearman within": float(np.mean([_rank(spearmanr, values[part], losses[part]) for part in strata])),
        "Kendall within": float(np.mean([_rank(kendalltau, values[part], losses[part]) for part in strata])),
    }


def _rank(kind: Any, values: np.ndarray, losses: np.ndarray) -> float:
    if np.ptp(values) == 0:
        return 0.0  # it tells nothing
    return float(kind(values, -losses).statistic)


def table() -> list[dict[str, Any]]:
    """A row a figure; the interval is where 95 % of the bootstrap's correlations within strata are."""
    rows = {key: row for key, (_, row) in models().items()}
    found = []
    for name, values, seconds in figures():
        keys = list(values)
        x = np.array([values[key] for key in keys])
        losses = np.array([rows[key]["losses"][rows[key]["steps"]] for key in keys])
        sizes = np.array([rows[key]["parameters"] for key in keys])
        draws = np.random.default_rng(0).integers(0, len(keys), (DRAWS, len(keys)))
        again = [correlations(x[d], losses[d], sizes[d])["Spearman within"] for d in draws]
        low, high = np.quantile(again, [0.025, 0.975])
        found.append({
            "figure": name, "models": len(keys), **correlations(x, losses, sizes),
            "low": float(low), "high": float(high), "CPU s": seconds if seconds is not None else "",
        })  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not args.report:
        measure()
    report("proxies", table(), ("torch", "scipy"))


if __name__ == "__main__":
    main()
