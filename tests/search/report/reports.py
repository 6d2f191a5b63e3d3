"""Reports of made-up studies, of any size, as `search.report.build` gives them."""

import math
import random
from datetime import datetime, timedelta
from typing import Any

NAMES = ("validation_loss", "latency (device l4)", "parameters", "flops", "memory")
UNITS = {"validation_loss": "nats", "latency (device l4)": "ms", "flops": "FLOP", "memory": "bytes"}


def report(
    trials: int, objectives: int = 2, *, failed: int = 0, rungs: bool = False, predicted: bool = False, seed: int = 0
) -> dict[str, Any]:
    """A study of so many trials, the last of which failed."""
    rng = random.Random(seed)
    like = {"direction": "minimize", "worst": None}
    columns = [{"name": name, "unit": UNITS.get(name, ""), **like} for name in NAMES[:objectives]]
    rows = [_row(number, columns, rng, number >= trials - failed, rungs, predicted) for number in range(trials)]
    done = [row for row in rows if row["values"]]
    points = {row["trial"]: tuple(row["values"].values()) for row in done}
    best = [row for row in done if not any(_beats(other, points[row["trial"]]) for other in points.values())]
    best.sort(key=lambda row: points[row["trial"]])
    return {
        "schema": 1,
        "study": "made up <b>",
        "folder": "runs/made_up",
        "objectives": columns,
        "train": {"length": 128},
        "trials": {"complete": len(done), "failed": failed, "running": 0},
        "draws": trials + trials // 2,
        "acceptance": trials / (trials + trials // 2) if trials else None,
        "survey": {"drawn": 1024, "refused": {"parameters at most 3e+06": 512}} if trials > 1 else None,
        "together": {"evaluations": 3, "times_as_fast": 1.7, "share": 0.1} if rungs else None,
        "surrogates": {"validation_loss": {"form": "structured", "rank": 0.875, "rank_of_parameters": 0.5}},
        "refused": {"parameters at most 3e+06": trials // 2} if trials > 1 else {},
        "exhausted": None,
        "front": [{"rank": n + 1, **row, "spec": None, "side_by_side": {}} for n, row in enumerate(best)],
        "all": rows,
        "final": [],
        "text": None,
        "next": [],
    }


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def _row(
    number: int, columns: list[dict[str, str]], rng: random.Random, failed: bool, rungs: bool, predicted: bool
) -> dict[str, Any]:
    depth, width = rng.randint(2, 12), rng.choice([128, 192, 256, 384])
    choices: dict[str, Any] = {"dims.width": width, "graph[1].times": depth,
                               "graph[1].body.norm": rng.choice(["layer_norm", "rms_norm"])}  # fmt: skip
    for layer in range(depth):
        choices[f"graph[1].body.channel.hidden.{layer}"] = rng.choice([2.0, 3.0, 4.0])
    size = float(12 * depth * width * width)
    loss = 2 + 40 / math.sqrt(size / 1e4) + rng.gauss(0, 0.02)
    known = {"validation_loss": loss, "latency (device l4)": depth * (0.1 + width / 4000), "parameters": size,
             "flops": 2 * size * 128, "memory": 4 * size + 1e6}  # fmt: skip
    values = {column["name"]: known[column["name"]] for column in columns}
    began = datetime(2026, 1, 1) + timedelta(seconds=10 * number)
    return {
        "trial": number,
        "hash": f"{number:032x}",
        "state": "failed" if failed else "complete",
        "values": None if failed else values,
        "reason": "the loss is nan at step 3\n</script><b>" if failed else None,
        "choices": choices,
        "started": began.isoformat(),
        "ended": (began + timedelta(seconds=8)).isoformat(),
        "rungs": [[steps, loss + 3 / steps] for steps in (10, 30, 90)[: 1 + number % 3]] if rungs else None,
        "predicted": {columns[0]["name"]: [loss + rng.gauss(0, 0.05), loss - 0.1, loss + 0.1]} if predicted else None,
        "validation_loss": loss,
        "validation_accuracy": None,
        "seconds": None if failed else {"training": depth * 1.5, "fit": depth * 1.6, "objectives": 0.1},
        "threads": 1,
    }
