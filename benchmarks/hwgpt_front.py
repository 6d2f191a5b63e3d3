"""A search problem with a known answer: perplexity and latency of every member of GPT-S (HW-GPT-Bench).

Polynomials of heads and ratios, one for each width, are fitted to the logarithms of the 10,000 measurements (Sukthanker
et al. 2024, arXiv 2405.10299; see `benchmarks.hwgpt`), so that each of the 10^12 members has both figures at once. A
search is scored by the hypervolume of what it evaluated, in the unit square from 95 % of the least measured figures to
what 95 % of the measured models are below.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.hwgpt import HEADS, MOST, RATIOS, WIDTHS, space
from search.frontier.hypervolume import hypervolume

Reals = NDArray[np.float64]
Archs = NDArray[np.int64]

DEPTHS = (10, 11, 12)
KEYS = {"a100": "a100__gpu_lat", "rtx2080": "rtx2080__gpu_lat", "cpu_alldlc": "cpu_alldlc__cpu_lat"}


class Truth:
    """Both figures of every member on one device."""

    def __init__(self, path: Path, device: str = "a100") -> None:
        with np.load(path) as file:
            self.archs = file["arch"].astype(np.int64)
            self.measured = np.column_stack([file["ppl"], file[KEYS[device]]]).astype(np.float64)
        self._fits = {}
        for width in WIDTHS:
            mine = self.archs[:, 0] == width
            archs, logs = self.archs[mine], np.log(self.measured[mine])
            self._fits[width] = [_least_squares(of(archs), log) for of, log in zip(COLUMNS, logs.T, strict=True)]
        self.low = self.measured.min(axis=0) * 0.95
        self.high = np.quantile(self.measured, 0.95, axis=0)

    def figures(self, archs: Archs) -> Reals:
        """Perplexity and latency, ``[n, 2]``."""
        found = np.empty((len(archs), 2))
        for width, fits in self._fits.items():
            mine = archs[:, 0] == width
            for column, fitted in enumerate(fits):
                found[mine, column] = np.exp(COLUMNS[column](archs[mine]) @ fitted)
        return found

    def score(self, figures: Reals) -> float:
        """The hypervolume, of 1."""
        return hypervolume(np.maximum((figures - self.low) / (self.high - self.low), 0.0), np.ones(2))

    def best(self, figures: Reals, counts: list[int]) -> dict[int, float]:
        """The largest score that so many of some points can have, exactly."""
        return best_of(np.maximum((figures - self.low) / (self.high - self.low), 0.0), counts)


def best_of(points: Reals, counts: list[int]) -> dict[int, float]:
    """The largest hypervolume below (1, 1) that so many of some points ``[n, 2]`` can have.

    What a point of a front adds depends only on its neighbours, so that the best choice is found by dynamic programming
    from left to right (Auger et al. 2009, "Theory of the hypervolume indicator").
    """
    points = points[(points < 1).all(axis=1)]
    points = points[np.lexsort((points[:, 1], points[:, 0]))]
    before = np.concatenate([[np.inf], np.minimum.accumulate(points[:, 1])[:-1]])
    x, y = points[points[:, 1] < before].T
    gain = (1 - x)[None] * (y[:, None] - y[None])  # of the second beside the first, which is left of it
    gain[np.tril_indices(len(x))] = -np.inf
    volume = (1 - x) * (1 - y)
    found = {}
    for count in range(1, min(max(counts), len(x)) + 1):
        if count > 1:
            volume = np.maximum((volume[:, None] + gain).max(axis=0), volume)
        found[count] = float(volume.max())
    return {count: found[min(count, len(found))] for count in counts}


def archs_of(vectors: Reals) -> Archs:
    """Members of the space as rows of the measurements: width, layers, bias, heads and ratios of each layer."""
    slots = {slot.path: number for number, slot in enumerate(space().slots)}
    found = np.zeros((len(vectors), 3 + 2 * MOST), dtype=np.int64)
    found[:, 0] = np.array(WIDTHS)[vectors[:, slots["dims.width"]].astype(int)]
    found[:, 1:3] = vectors[:, [slots["dims.layers"], slots["dims.biased"]]]
    for start, branch, field, options in ((3, 0, "heads", HEADS), (3 + MOST, 1, "ratio", RATIOS)):
        own = [slots[f"graph[1].body[{layer}].body.branches[{branch}][1].{field}"] for layer in range(MOST)]
        codes = vectors[:, own]
        chosen = np.array(options)[np.nan_to_num(codes).astype(int)]
        found[:, start : start + MOST] = np.where(np.isnan(codes), 0, chosen)
    return found


def _least_squares(columns: Reals, target: Reals) -> Any:
    return np.linalg.lstsq(columns, target, rcond=None)[0]


def _shared(archs: Archs) -> tuple[list[Any], Reals, Reals, Reals, Reals]:
    heads, ratios = archs[:, 3 : 3 + MOST].astype(float), archs[:, 3 + MOST :].astype(float)
    depth = [archs[:, 1] == layers for layers in DEPTHS]
    return [*depth, archs[:, 2]], heads, ratios, heads.sum(axis=1), ratios.sum(axis=1)


def _of_perplexity(archs: Archs) -> Reals:
    first, h, m, all_h, all_m = _shared(archs)
    return np.column_stack([*first, h, m, h**2, m**2, all_h**2, all_m**2, all_h * all_m])


def _of_latency(archs: Archs) -> Reals:
    first, _, _, h, m = _shared(archs)
    return np.column_stack([*first, h, m, h**2, m**2, h * m, archs[:, 1] * h, archs[:, 1] * m])


COLUMNS = (_of_perplexity, _of_latency)
