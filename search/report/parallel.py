"""Parallel coordinates: a line for each trial, through its choices and its objectives (Inselberg 1985, "The plane with
parallel coordinates")."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from search.axes import Scale
from search.drawing import line, svg, text
from search.progress import shown
from search.report.importance import choices, clipped
from search.report.marks import DOMINATED, FRONT, Row, complete, key, scale

MOST = 8  # choices, those that matter most
WIDTH, HEIGHT, TOP, FOOT = 1040.0, 360.0, 56.0, 26.0
Place = Callable[[Any], float]


def drawing(report: Row, shares: dict[str, dict[str, float]]) -> str:
    """A line for each complete trial; nothing without trials or choices."""
    rows = complete(report)
    names = choices(rows)
    if not rows or not names:
        return ""
    weight = {name: max((of.get(name, 0.0) for of in shares.values()), default=0.0) for name in names}
    kept = set(sorted(names, key=lambda name: -weight[name])[:MOST])
    names = [name for name in names if name in kept]
    axes: list[tuple[str, Place, list[tuple[float, str]], Callable[[Row], Any]]] = []
    for name in names:
        axes.append((name, *_choice([row["choices"].get(name) for row in rows]), _chosen(name)))
    for objective in report["objectives"]:
        axes.append((objective["name"], *_objective(rows, objective), _valued(objective["name"])))
    gap = (WIDTH - 130) / max(1, len(axes) - 1)
    xs = [55 + gap * number for number in range(len(axes))]
    best = {row["trial"] for row in report["front"]}
    drawn = []
    faint = max(0.12, min(0.6, 30 / len(rows)))
    for row in sorted(rows, key=lambda row: row["trial"] in best):
        ys = [place(of(row)) for _, place, _, of in axes]
        points = " ".join(f"{x:.0f},{y:.0f}" for x, y in zip(xs, ys, strict=True))
        kind = 'class="way front"' if row["trial"] in best else f'class="way" stroke-opacity="{faint:.2f}"'
        drawn.append(f'<polyline {kind} data-t="{row["trial"]}" points="{points}"/>')
    for number, (x, (name, _, ticks, _)) in enumerate(zip(xs, axes, strict=True)):
        drawn.append(line(x, TOP, x, HEIGHT - FOOT, colour="#333"))
        objective = number >= len(names)
        drawn.append(text(x, 16 + 18 * (number % 2), clipped(name, int(gap / 3.4)), anchor="middle",
                          colour=FRONT if objective else "#222"))  # fmt: skip
        for y, words in ticks:
            words = clipped(words, max(6, int(gap / 7)))
            drawn.append(f'<rect x="{x + 3:.0f}" y="{y - 9:.0f}" width="{6.4 * len(words) + 4:.0f}" height="13" '
                         'fill="#fff" fill-opacity="0.8"/>')  # fmt: skip
            drawn.append(text(x + 5, y + 2, words, colour="#444", size=11))
        drawn.append(f'<rect class="brush" data-axis="{number}" x="{x - 11:.0f}" y="{TOP - 4:.0f}" width="22" '
                     f'height="{HEIGHT - FOOT - TOP + 8:.0f}"/>')  # fmt: skip
    lead = key((DOMINATED, "trial"), (FRONT, "Pareto front"))
    picture = svg(HEIGHT, *drawn, label="parallel coordinates", width=WIDTH)
    return f'{lead}<div class="wide"><div class="broad" id="parallel">{picture}</div></div>'


def _chosen(name: str) -> Callable[[Row], Any]:
    return lambda row: row["choices"].get(name)


def _valued(name: str) -> Callable[[Row], Any]:
    return lambda row: row["values"][name]


def _height(share: float) -> float:
    return HEIGHT - FOOT - 8 - share * (HEIGHT - FOOT - TOP - 16)


def _choice(values: Sequence[Any]) -> tuple[Place, list[tuple[float, str]]]:
    """Places of what was chosen; that a choice was not reached has one of its own."""
    distinct = list(dict.fromkeys(values))
    numeric = [value for value in distinct if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if len(numeric) > 8 and len(numeric) >= len(distinct) - 1:
        inside = Scale.of(numeric, log=False, room=0.0, whole=all(isinstance(value, int) for value in numeric))
        low = 0.12 if None in distinct else 0.0
        ticks = [(_height(low + (1 - low) * inside.share(value)), words) for value, words in inside.ticks(6)]
        ticks += [(_height(0.0), "none")] if low else []
        return (lambda value: _height(0.0 if value is None else low + (1 - low) * inside.share(value))), ticks
    words = sorted((value for value in distinct if value is not None and value not in numeric), key=str)
    ordered = [None] * (None in distinct) + sorted(numeric) + words
    places = {value: _height(number / max(1, len(ordered) - 1)) for number, value in enumerate(ordered)}
    return places.__getitem__, [(y, "none" if value is None else _told(value)) for value, y in places.items()]


def _objective(rows: list[Row], objective: Row) -> tuple[Place, list[tuple[float, str]]]:
    axis = scale(rows, objective, room=0.0)
    unit = f" {objective['unit']}" if objective["unit"] not in ("", "bytes") else ""
    ticks = [(_height(axis.share(value)), words + unit) for value, words in axis.ticks(6)]
    return (lambda value: _height(axis.share(value))), ticks


def _told(value: Any) -> str:
    return shown(value, "") if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
