"""How benchmarks measure: variants interleaved, garbage collected before each sample, CPU time, medians."""

from __future__ import annotations

import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any


def interleaved(variants: Mapping[str, Callable[[], object]], rounds: int, warm: int = 1) -> dict[str, float]:
    """Median CPU seconds of each variant over rounds in which every variant runs once."""
    for _ in range(warm):
        for run in variants.values():
            run()
    samples: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            gc.collect()
            start = time.process_time()
            run()
            samples[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in samples.items()}


def report(name: str, rows: list[dict[str, Any]], packages: tuple[str, ...] = ("torch",)) -> None:
    """Prints a table, and writes it with the versions to ``benchmarks/results/<name>.json``."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([_cell(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(line[number]) for line in cells) for number in range(len(columns))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    versions = {package: version(package) for package in packages}
    print(f"python {platform.python_version()}, " + ", ".join(f"{key} {value}" for key, value in versions.items()))
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    data = {
        "benchmark": name,
        "command": f"python -m benchmarks.{Path(sys.argv[0]).stem}",
        "versions": versions,
        "rows": rows,
    }
    (folder / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
