"""What was predicted beside what came out: objectives by what was learned from other trials, latencies by prices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search.axes import Plane, Scale
from search.drawing import line
from search.report.marks import Row, complete, dot, grid, values

Values = NDArray[np.float64]
ENOUGH = 3  # points for a rank correlation


def drawings(report: Row) -> str:
    """A plane for each pair of a prediction and an outcome; nothing where there is none."""
    rows = complete(report)
    found = []
    for objective in report["objectives"]:
        told = [row for row in rows if (row["predicted"] or {}).get(objective["name"])]
        if told:
            intervals = [row["predicted"][objective["name"]] for row in told]
            found.append(_plane(told, [float(one[0]) for one in intervals], values(told, objective), objective,
                                objective["name"], intervals, report["surrogates"].get(objective["name"])))  # fmt: skip
    for predicted, measured in latencies(report):
        found.append(_plane(rows, values(rows, predicted), values(rows, measured), measured, predicted["name"], ()))
    return grid(found) if found else ""


def latencies(report: Row) -> list[tuple[Row, Row]]:
    """A predicted latency and the measured one, where both are objectives."""
    of = [objective for objective in report["objectives"] if objective["name"].startswith("latency")]
    measured = [objective for objective in of if "measured" in objective["name"]]
    predicted = [objective for objective in of if objective not in measured]
    return [(one, other) for one in predicted for other in measured]


def _plane(
    rows: Sequence[Row], foretold: list[float], came: list[float], objective: Row, name: str,
    intervals: Sequence[Sequence[float]], learned: Row | None = None,
) -> str:  # fmt: skip
    ends = [float(end) for one in intervals for end in one]
    scale = Scale.of([*foretold, *came, *ends], objective["unit"])
    plane = Plane(scale, scale, height=340)
    marks = [line(plane.x(scale.low), plane.y(scale.low), plane.x(scale.high), plane.y(scale.high), colour="#bbb",
                  more='stroke-dasharray="4 3"')]  # fmt: skip
    for one, y in zip(intervals, came, strict=bool(intervals)):
        if len(one) == 3:
            marks.append(line(plane.x(float(one[1])), plane.y(y), plane.x(float(one[2])), plane.y(y), colour="#b9c4d0"))
    marks += [dot(plane.x(x), plane.y(y), row["trial"]) for row, x, y in zip(rows, foretold, came, strict=True)]
    unit = f" [{objective['unit']}]" if objective["unit"] not in ("", "bytes") else ""
    drawn = plane.drawn(f"{name}{unit}, predicted", f"{objective['name']}{unit}", marks, label=f"{name}, predicted")
    said = _errors(np.array(foretold), np.array(came), intervals) + (f"; {ranked(learned)}" if learned else "")
    return f"<figure>{drawn}<figcaption>{said}</figcaption></figure>"


def ranked(learned: Row) -> str:
    """How well a surrogate ranks what it has not seen, beside the number of parameters alone."""
    alone = learned["rank_of_parameters"]
    said = f"rank correlation {learned['rank']:.2f} on trials left out, at equal cost"
    if alone is not None:
        said += f"; by parameters alone {alone:.2f}"
    if learned["form"] == "parameters":
        return f"{said}: foretold by parameters alone, as the surrogate is no better"
    return f"{said}: foretold by the {learned['form']} surrogate"


def rank_correlation(xs: Values, ys: Values) -> float:
    """Spearman's rho (Spearman 1904, "The proof and measurement of association between two things")."""
    return float(np.corrcoef(_ranks(xs), _ranks(ys))[0, 1])


def _ranks(values: Values) -> Values:
    """Ranks from 1; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    found: Values = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return found


def _errors(foretold: Values, came: Values, intervals: Sequence[Sequence[float]]) -> str:
    if len(came) < ENOUGH:
        return "too few points for a rank correlation"
    said = [f"{len(came)} trials"]
    if np.ptp(foretold) and np.ptp(came):
        said.append(f"rank correlation {rank_correlation(foretold, came):.2f}")
    if (came > 0).all():
        said.append(f"error {100 * float(np.median(np.abs(foretold / came - 1))):.2g} % in the middle")
    if intervals and all(len(one) == 3 for one in intervals):
        inside = [float(one[1]) <= y <= float(one[2]) for one, y in zip(intervals, came, strict=True)]
        said.append(f"{100 * sum(inside) / len(inside):.0f} % inside their intervals")
    return ", ".join(said)
