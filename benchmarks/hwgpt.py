"""Predicted against measured latency of GPT-S, 10,000 language models timed on three devices.

    python -m benchmarks.hwgpt hwgpt_s.npz

The measurements are those of HW-GPT-Bench (Sukthanker et al. 2024, arXiv 2405.10299, Apache-2.0; the file
``data_collection/gpt_datasets/gpt_s/stats.pkl`` of github.com/automl/HW-GPT-Bench), as arrays: ``arch``
``[models, 3 + 2 * 12]`` is width, layers, bias, the heads of each layer and the ratio of its perceptron, 0 behind the
last layer; ``a100__gpu_lat`` and ``rtx2080__gpu_lat`` are milliseconds, ``cpu_alldlc__cpu_lat`` seconds. Without an
argument the 300 of them that the tests have are used.

What was timed, as its profiling code tells: a forward pass over 1024 tokens; on a GPU under autocast with float32
weights, as the sum of the kernels' times; on the CPU in float32. The rates that follow leave 8 as the batch.
"""

from __future__ import annotations

import argparse
import time
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.timing import report
from search.calibration.check import tau
from search.calibration.fitting import fitted_to, predicted
from search.cost.autocast import autocast
from search.cost.block import Operator
from search.cost.block import Table as Operators
from search.cost.kernels import weights_per_pass
from search.cost.passes import table_by_work
from search.cost.price import resolve_lengths
from search.cost.setting import Setting, known_device, known_dtype
from search.cost.steps import steps
from search.cost.table import Table
from spaces.encoding import decode
from spaces.space import Space, load

Reals = NDArray[np.float64]
Archs = NDArray[np.int64]

SAMPLE = Path(__file__).parents[1] / "tests/search/cost/data/hwgpt_s.csv"
MOST, BATCH = 12, 8
WIDTHS, HEADS, RATIOS = (192, 384, 768), (4, 8, 12), (2, 3, 4)
DRAWS, FEW, TRAINED = 20, 10, 8_000


class Timed(NamedTuple):
    """How a device was measured.

    Attributes:
        key: of its array.
        unit: seconds.
        profile: the device profile that is nearest.
    """

    key: str
    unit: float
    profile: str
    dtype: str
    autocast: bool


DEVICES = {
    "A100": Timed("a100__gpu_lat", 1e-3, "a100_40gb", "bfloat16", True),
    "RTX 2080 Ti": Timed("rtx2080__gpu_lat", 1e-3, "rtx_2080_ti", "float16", True),
    "Xeon, 8 cores": Timed("cpu_alldlc__cpu_lat", 1.0, "xeon_gold_6240", "float32", False),
}


def read(path: Path) -> tuple[Archs, dict[str, Reals]]:
    """Architectures, and their seconds by device."""
    if path.suffix == ".csv":
        cells = np.genfromtxt(path, delimiter=",", names=True, encoding="utf-8")
        columns = {name: cells[name] for name in cells.dtype.names or ()}
        arch = np.column_stack([columns.pop(name) for name in list(columns) if not name.endswith("_lat")])
    else:
        with np.load(path) as file:
            columns = {timed.key: file[timed.key] for timed in DEVICES.values()}
            arch = file["arch"]
    return arch.astype(np.int64), {
        name: columns[timed.key].astype(np.float64) * timed.unit for name, timed in DEVICES.items()
    }


@cache
def space() -> Space:
    """The space that the architectures are members of."""
    return load("hw_gpt_s")


def vectors(archs: Archs) -> Reals:
    """Architectures as vectors of the space."""
    slots = {slot.path: number for number, slot in enumerate(space().slots)}
    found = np.full((len(archs), len(slots)), np.nan)
    found[:, slots["dims.width"]] = np.searchsorted(WIDTHS, archs[:, 0])
    found[:, slots["dims.layers"]] = archs[:, 1]
    found[:, slots["dims.biased"]] = archs[:, 2]
    for layer in range(MOST):
        on = archs[:, 1] > layer
        choices = (("heads", HEADS, archs[on, 3 + layer]), ("ratio", RATIOS, archs[on, 3 + MOST + layer]))
        for branch, (field, options, chosen) in enumerate(choices):
            node = f"graph[1].body[{layer}].body.branches[{branch}][1]"
            found[on, slots[f"{node}.{field}"]] = np.searchsorted(options, chosen)
            found[on, slots[f"{node}.bias"]] = archs[on, 2]
    return found


def features(archs: Archs, timed: Timed) -> Reals:
    """Seconds by class of work under the profile, ``[models, classes]``: those of the ends and of each layer."""
    under = Setting(known_dtype(timed.dtype), known_device(timed.profile), timed.profile)
    ends, layers = {}, {}
    for width in WIDTHS:
        for biased in (0, 1):
            for heads in HEADS:
                for ratio in RATIOS:
                    first, layer, last = _tables(width, biased, heads, ratio, timed)
                    resident = weights_per_pass(first + layer * 10 + last)  # all in the farthest level
                    ends[width] = _seconds(first + last, under, resident)
                    layers[width, biased, heads, ratio] = _seconds(layer, under, resident)
    found = np.array([ends[arch[0]] for arch in archs.tolist()])
    for row, arch in zip(found, archs.tolist(), strict=True):
        for number in range(arch[1]):
            row += layers[arch[0], arch[2], arch[3 + number], arch[3 + MOST + number]]
    return found


def _seconds(table: Operators, under: Setting, resident: int) -> Reals:
    return np.array(list(table_by_work(table, under, resident).values()))


def _tables(width: int, biased: int, heads: int, ratio: int, timed: Timed) -> tuple[Operators, Operators, Operators]:
    """Operators of the embedding, of one layer, and of the last norm and the head."""
    arch = np.array([[width, 10, biased, *[heads] * 10, 0, 0, *[ratio] * 10, 0, 0]])
    spec = decode(space(), vectors(arch)[0]).spec
    work = steps(spec, batch=BATCH, lengths=resolve_lengths(spec, None), dtype=known_dtype(timed.dtype)).steps
    embedding, *rounds, norm, head = [step.unit.cost.inference for step in work if not step.training]
    assert len(rounds) == 10
    cast = autocast if timed.autocast else tuple[Operator, ...]
    return cast(embedding), cast(rounds[0]), cast(norm + head)


def error(predicted: Reals, measured: Reals) -> float:
    """Mean relative error in percent."""
    return float(100 * np.abs(predicted / measured - 1).mean())


def regression(archs: Archs, measured: Reals, seed: int) -> tuple[float, float | None]:
    """Error and tau of least squares on most of the architectures, one of each width, for the others."""
    heads, ratios = archs[:, 3 : 3 + MOST].sum(axis=1), archs[:, 3 + MOST :].sum(axis=1)
    layers = archs[:, 1]
    columns = [*(layers == count for count in (10, 11, 12)), archs[:, 2], heads, ratios]
    columns += [heads**2, ratios**2, heads * ratios, layers * heads, layers * ratios]
    x = np.column_stack(columns).astype(np.float64)
    order = np.random.default_rng(seed).permutation(len(archs))
    train, test = np.split(order, [len(archs) * TRAINED // 10_000])
    predicted = np.empty(len(archs))
    for width in WIDTHS:
        mine = archs[:, 0] == width
        rows = train[mine[train]]
        predicted[mine] = np.exp(x[mine] @ np.linalg.lstsq(x[rows], np.log(measured[rows]), rcond=None)[0])
    return error(predicted[test], measured[test]), tau(predicted[test], measured[test])


def few(archs: Archs, name: str, measured: Reals, draws: int = DRAWS) -> Reals:
    """Error and tau on the others of profiles fitted to a few random architectures, ``[draws, 2]``."""
    x, device = features(archs, DEVICES[name]), known_device(DEVICES[name].profile)
    found = []
    for seed in range(draws):
        order = np.random.default_rng(seed).permutation(len(measured))
        drawn, rest = order[:FEW], order[FEW:]
        told = predicted(x[rest], fitted_to(x[drawn], measured[drawn], device), device)
        found.append((error(told, measured[rest]), tau(told, measured[rest])))
    return np.array(found)


def figures(archs: Archs, measured: Reals, name: str) -> dict[str, Any]:
    """One row of the table."""
    timed = DEVICES[name]
    start = time.perf_counter()
    prices = Table(space(), batch=BATCH, dtype=timed.dtype, device=timed.profile).price(vectors(archs))
    took = time.perf_counter() - start
    assert not prices.refused.any()
    fitted = few(archs, name, measured)
    trained = regression(archs, measured, seed=0)
    return {
        "device": name,
        "models": len(archs),
        "FLOPs: tau": tau(prices.forward.astype(np.float64), measured),
        "profile: tau": tau(prices.latency_ms, measured),
        f"{FEW} measured: error %": fitted[:, 0].mean(),
        "error ±": fitted[:, 0].std(),
        f"{FEW} measured: tau": fitted[:, 1].mean(),
        "tau ±": fitted[:, 1].std(),
        "regression: error %": trained[0],
        "regression: tau": trained[1],
        "pricing, s": took,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", type=Path, default=SAMPLE, help="the measurements, .npz or .csv")
    path = parser.parse_args().path
    if not path.exists():
        parser.error(f"there is no {path}; the measurements are those of github.com/automl/HW-GPT-Bench (Apache-2.0)")
    torch.set_num_threads(1)
    archs, measured = read(path)
    report(
        "hwgpt_sample" if path == SAMPLE else "hwgpt",
        [figures(archs, measured[name], name) for name in DEVICES],
        ("torch", "numpy"),
    )


if __name__ == "__main__":
    main()
