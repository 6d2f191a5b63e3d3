"""What the drawings of a study share: trials as marks that tell who they are, and objectives as axes."""

from __future__ import annotations

from typing import Any

from search.axes import Scale
from search.progress import shown

DOMINATED, FRONT, GUIDE = "#8593a3", "#c2410c", "#1b6ca8"
Row = dict[str, Any]  # a trial, or an objective, of the report


def titled(objective: Row) -> str:
    """The name of an axis: with its unit, and which way is better."""
    unit = f" [{objective['unit']}]" if objective["unit"] and objective["unit"] != "bytes" else ""
    return f"{objective['name']}{unit}, {'lower' if objective['direction'] == 'minimize' else 'higher'} is better"


def figure(value: float | None, objective: Row) -> str:
    """A value of an objective, as people read it."""
    return "–" if value is None else shown(value, objective["unit"])


def complete(report: Row) -> list[Row]:
    """The trials that have values."""
    return [row for row in report["all"] if row["values"]]


def values(rows: list[Row], objective: Row) -> list[float]:
    """The values of an objective."""
    return [row["values"][objective["name"]] for row in rows]


def scale(rows: list[Row], objective: Row, **options: Any) -> Scale:
    """The axis of an objective."""
    return Scale.of(values(rows, objective), objective["unit"], **options)


def dot(x: float, y: float, trial: int, *, front: bool = False, radius: float = 4) -> str:
    """A trial as a point; the page's script tells its spec when it is pointed at."""
    kind = "dot front" if front else "dot"
    return f'<circle class="{kind}" data-t="{trial}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"/>'


def better(objective: Row) -> int:
    """What to multiply values with, so that less is better."""
    return -1 if objective["direction"] == "maximize" else 1


def grid(drawings: list[str]) -> str:
    """Drawings beside each other where there is room."""
    return f'<div class="grid">{"".join(drawings)}</div>'


def key(*entries: tuple[str, str]) -> str:
    """What colours mean."""
    return (
        '<p class="key">' + "".join(f'<i style="background:{colour}"></i>{words}' for colour, words in entries) + "</p>"
    )
