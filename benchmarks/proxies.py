"""Which cheap figure ranks trained decoders: zero-cost proxies, synthetic tasks, size, the first training steps.

    python -m benchmarks.proxies                    # goes on where it was; stop it whenever you like
    python -m benchmarks.proxies --report           # the correlations of what there is

The decoders and their losses are those of `benchmarks.trained`. Each figure of one of them is a row of
``benchmarks/results/proxies.jsonl``, written when it is known. Correlations are of ranks, positive where the figure
points the right way: over all decoders, within strata of equal parameters, where size tells little, and beyond what
counting the mixers tells.
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
from scipy.stats import kendalltau, rankdata

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
TASKS = {  # so small that some mixers learn them in so few steps: those of the source take thousands
    "in_context_recall": "{kind: in_context_recall, vocab: 8, length: 16}",
    "selective_copying": "{kind: selective_copying, vocab: 8, copied: 4, length: 16}",
    "compression": "{kind: compression, length: 16}",
    "memorisation": "{kind: memorisation, length: 16, examples: 12800}",
    "noisy_recall": "{kind: noisy_recall, vocab: 12, noise: 4, length: 16}",
    "fuzzy_recall": "{kind: fuzzy_recall, vocab: 10, key: 2, value: 2, length: 16}",
}
STEPS, BATCH = 100, 16
EARLY = (25, 50, 100)  # steps of the training itself
STRATA = 5
GROUP = 32  # decoders whose tasks are trained before those of others
LEAST = 15  # models of a figure that is reported
DRAWS = 300  # of the bootstrap

REFERENCE = "share of mamba2 layers"  # the choice that tells most here, known only from trained decoders

Floats = np.ndarray[Any, Any]
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
    """Computes what is missing: proxies of all decoders, then each task of a group of decoders after another."""
    there, all_models = known(), models()
    keys = list(all_models)
    todo: list[tuple[str, str, Callable[..., dict[str, Any]]]] = [
        *((key, name, proxy) for key in keys for name in PROXIES),
        *(
            (key, name, task)
            for first in range(0, len(keys), GROUP)
            for name in TASKS
            for key in keys[first : first + GROUP]
        ),
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
    yield REFERENCE, {key: _share(row["choices"]) for key, row in rows.items()}, None
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


def _share(choices: dict[str, Any]) -> float:
    mixers = [value for path, value in choices.items() if path.endswith(".mixer")]
    return mixers.count("mamba2") / len(mixers)


def _median(rows: dict[str, dict[str, Any]]) -> float:
    return float(np.median([row["cpu_seconds"] for row in rows.values()]))


def spearman(values: Floats, losses: Floats) -> float:
    """Of the ranks of a figure and of minus the loss; 0 for a figure that tells nothing."""
    if np.ptp(values) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(values), rankdata(-losses))[0, 1])


def kendall(values: Floats, losses: Floats) -> float:
    """Tau-b of a figure and of minus the loss; 0 for a figure that tells nothing."""
    return 0.0 if np.ptp(values) == 0 else float(kendalltau(values, -losses).statistic)


def within(kind: Callable[[Floats, Floats], float], values: Floats, losses: Floats, sizes: Floats) -> float:
    """The mean of a correlation over strata of models of like size."""
    strata = np.array_split(np.argsort(sizes, kind="stable"), STRATA)
    return float(np.mean([kind(values[part], losses[part]) for part in strata]))


def beyond(values: Floats, losses: Floats, told: Floats) -> float:
    """Spearman's correlation of what a linear fit of the ranks of ``told`` ``[models, columns]`` leaves of both."""
    columns = np.column_stack([rankdata(told, axis=0), np.ones(len(told))])
    left = []
    for ranks in (rankdata(values), rankdata(-losses)):
        left.append(ranks - columns @ np.linalg.lstsq(columns, ranks, rcond=None)[0])
    return float(np.corrcoef(left)[0, 1]) if np.std(left[0]) > 1e-6 * len(values) else 0.0


def _simple(row: dict[str, Any]) -> list[float]:
    """What the choices tell without any proxy: mixers, the first one, MLPs, depth, width, parameters."""
    choices = row["choices"]
    mixers = [value for path, value in choices.items() if path.endswith(".mixer")]
    channels = [value for path, value in choices.items() if path.endswith(".channel")]
    shares = [mixers.count(name) / len(mixers) for name in ("attention", "window", "mamba2")]
    shares.append(float(choices["graph[1].body[0].mixer"] == "attention"))
    return [*shares, channels.count("mlp") / len(mixers), len(mixers), choices["dims.width"], row["parameters"]]


def table() -> list[dict[str, Any]]:
    """A row a figure; low and high bound 95 % of the bootstrap's Spearman correlations within strata."""
    rows = {key: row for key, (_, row) in models().items()}
    found = []
    for name, values, seconds in figures():
        keys = list(values)
        if len(keys) < LEAST:
            continue
        x = np.array([values[key] for key in keys])
        losses = np.array([rows[key]["losses"][rows[key]["steps"]] for key in keys])
        sizes = np.array([rows[key]["parameters"] for key in keys])
        draws = np.random.default_rng(0).integers(0, len(keys), (DRAWS, len(keys)))
        low, high = np.quantile([within(spearman, x[d], losses[d], sizes[d]) for d in draws], [0.025, 0.975])
        found.append({
            "figure": name, "models": len(keys),
            "Spearman": spearman(x, losses), "Kendall": kendall(x, losses),
            "Spearman within": within(spearman, x, losses, sizes), "low": float(low), "high": float(high),
            "Kendall within": within(kendall, x, losses, sizes),
            "beyond choices": beyond(x, losses, np.array([_simple(rows[key]) for key in keys])),
            "CPU s": "" if seconds is None else seconds,
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
