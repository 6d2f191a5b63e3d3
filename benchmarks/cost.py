"""How fast and how exactly candidates and whole specs are priced. One core, CPU time.

python -m benchmarks.cost
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import yaml

import compiler
from archspec import spec
from archspec.source import Map, parse
from benchmarks.timing import interleaved, report
from search.cost import price, results, unit
from search.cost.chain import price_trees
from search.cost.table import FIGURES, Table
from spaces.encoding import decode, sample_encoded
from spaces.space import library, load

DEVICE = "l4"
EXAMPLES = Path(__file__).parents[1] / "examples"
ENCODED, TREES, COMPARED, SLOW = 200_000, 2_000, 1_000, 200
WHOLE = """
import resource, sys, torch
torch.set_num_threads(1)
import compiler
from archspec import spec
from search.cost import price
model = spec.load(sys.argv[1])
compiler.compile(model, device="meta")
price(model, device="l4", dtype="bfloat16")
print(resource.getrusage(resource.RUSAGE_SELF).ru_utime + resource.getrusage(resource.RUSAGE_SELF).ru_stime)
"""
LLAMA = """
archspec: 1
name: llama-12
interface: {kind: causal_lm, vocab: 32000, length: 1024}
graph:
  - {kind: token_embedding, width: 768}
  - kind: repeat
    times: 12
    body:
      kind: transformer_layer
      norm: rms_norm
      mixer: {kind: attention, heads: 12, kv_heads: 4, position: rope}
      channel: {kind: glu, hidden: 2048}
  - rms_norm
  - {kind: lm_head, tied: true}
"""
os.environ["ARCHSPEC_CACHE"] = "off"  # what is remembered on disk would be found


def fresh(tree: Map) -> Map:
    """The same tree, sharing nothing with any other."""
    return parse(yaml.safe_dump(json.loads(json.dumps(tree)), sort_keys=False))


def spaces() -> list[dict[str, Any]]:
    """Candidates a second, warm, and how many of them are priced exactly as one by one."""
    rows = []
    for name in library():
        space, random = load(name), Random(0)
        table = Table(space, device=DEVICE)
        vectors = sample_encoded(space, np.random.default_rng(0), ENCODED)
        table.price(vectors[:1])
        encoded, trees, compared = (ENCODED, TREES, COMPARED) if table.slow is None else (SLOW, SLOW, SLOW)
        vectors = vectors[:encoded]
        shared = [space.sample(random).tree for _ in range(trees)]
        apart = [fresh(tree) for tree in shared]
        times = interleaved(
            {
                "encoded": partial(table.price, vectors),
                "shared": partial(price_trees, shared, device=DEVICE),
                "apart": partial(price_trees, apart, device=DEVICE),
            },
            rounds=7,
        )
        prices = table.price(vectors[:compared])
        exact = sum(
            all(getattr(prices, figure)[number] == getattr(cost, figure) for figure in FIGURES)
            for number in range(compared)
            for cost in [price(decode(space, vectors[number]).spec, device=DEVICE)]
        )
        rows.append(
            {
                "what": name,
                "encoded / s": round(encoded / times["encoded"]),
                "trees of the space / s": round(trees / times["shared"]),
                "trees of a file each / s": round(trees / times["apart"]),
                "exact": f"{exact} of {compared}",
            }
        )
    return rows


def unprepared(run: Callable[..., object], *args: object) -> None:
    """Runs with nothing remembered."""
    unit.forget()
    results._remembered.clear()
    run(*args)


def all_of_it(path: Path) -> None:
    """From a file to a traced model on the meta device, and its price."""
    checked = spec.load(path)
    compiler.compile(checked, device="meta")
    price(checked, device=DEVICE, dtype="bfloat16")


def text_to_cost(text: str) -> None:
    """From YAML to the full cost."""
    price(spec.loads(text), device=DEVICE, dtype="bfloat16")


def cold() -> list[dict[str, Any]]:
    """CPU milliseconds from YAML to the full cost in a warm process, no block of it seen before."""
    names = {"gpt2": 40, "deepseek_v3": 100}
    texts = {name: (EXAMPLES / "zoo/language" / f"{name}.yaml").read_text(encoding="utf-8") for name in names}
    texts["12-layer llama"] = LLAMA
    times = interleaved(
        {name: partial(unprepared, text_to_cost, text) for name, text in texts.items()}, rounds=25, warm=3
    )
    return [
        {"what": name, "text to cost, nothing remembered, ms": 1e3 * time, "bar, ms": names.get(name, 40)}
        for name, time in times.items()
    ]


def specs() -> list[dict[str, Any]]:
    """CPU milliseconds to price a spec: with nothing remembered, and again; and the whole way from its file."""
    rows = []
    for file in ("tiny.yaml", "zoo/language/gpt2.yaml", "zoo/language/deepseek_v3.yaml"):
        path = EXAMPLES / file
        model = spec.load(path)
        again = partial(price, model, device=DEVICE, dtype="bfloat16")
        variants: dict[str, Callable[[], object]] = {
            "again": again,
            "first": partial(unprepared, again),
            "all": partial(unprepared, all_of_it, path),
        }
        times = interleaved(variants, rounds=15, warm=2)
        process = [
            float(subprocess.run([sys.executable, "-c", WHOLE, str(path)], capture_output=True, check=True).stdout)
            for _ in range(3)
        ]
        rows.append(
            {
                "what": file,
                "price, nothing remembered, ms": 1e3 * times["first"],
                "price again, ms": 1e3 * times["again"],
                "check + compile + price, ms": 1e3 * times["all"],
                "the same as a process, s": sorted(process)[1],
            }
        )
    return rows


def main() -> None:
    torch.set_num_threads(1)
    report("cost_of_candidates", spaces(), packages=("torch", "numpy"))
    print()
    report("cost_from_cold", cold())
    print()
    report("cost_of_specs", specs())


if __name__ == "__main__":
    main()
