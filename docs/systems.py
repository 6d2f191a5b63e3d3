"""The page of the systems that this project was asked for: docs/systems.md.

It is made of docs/systems.yaml (the rows), examples/zoo (their specs) and docs/checks.json (what came of their tests,
written by ``make systems``).
"""

from __future__ import annotations

import json
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from archspec.spec import Spec, load
from search.cost.price import price
from spaces import space as spaces

ROOT = Path(__file__).parents[1]
PAGE, ROWS, CHECKS = (ROOT / "docs" / name for name in ("systems.md", "systems.yaml", "checks.json"))
WAVES = ("sequences", "images and other modalities", "transformations", "search", "training", "hosts", "outside")
SAID = {
    "sequences": "Attention, channel mixers, norms, depth, recurrence, mixtures, and systems of several parts.",
    "images and other modalities": "To come; the first of them are here already.",
    "transformations": "Passes over models: to come.",
    "search": "To come as features of the search.",
    "training": "To come as features of training.",
    "hosts": "Systems in which a model of ours would be one part.",
    "outside": "No architecture: surveys and theory.",
}


@cache
def rows() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(ROWS.read_text())
    return found


@cache
def _files() -> dict[str, Path]:
    places = [*(ROOT / "spaces" / "library").glob("*.yaml"), *(ROOT / "examples" / "zoo").rglob("*.yaml")]
    return {path.stem: path for path in sorted(places, key=lambda path: "zoo" in path.parts)}


def specs(row: str) -> list[Path]:
    """The files of a row: a spec or a space of its name, and specs of its published sizes, ``NAME_SIZE.yaml``."""
    longer = [other["id"] for other in rows() if other["id"].startswith(f"{row}_")]
    mine = (
        path for name, path in _files().items()
        if name == row or (name.startswith(f"{row}_") and not any(name.startswith(other) for other in longer))
    )  # fmt: skip
    return sorted(mine, key=lambda path: (path.stem != row, path.stem))


def spec_of(path: Path) -> Spec:
    """The spec of a file; of a space, its default."""
    return spaces.load(path).default().spec if path.parent.name == "library" else load(path)


def page() -> str:
    """The page; the same for the same files."""
    checks = json.loads(CHECKS.read_text()) if CHECKS.exists() else {}
    there = [row for row in rows() if specs(row["id"])]
    holds = sum(_state(row["id"], checks) == "holds" for row in there)
    lines = [
        "# Systems",
        "",
        f"The project was asked for from documents that describe {len(rows())} systems. {len(there)} of them are specs "
        f"in `examples/zoo/`, whose parameters and operations (forward, one sample at the longest length) stand here; "
        f"the checks of {holds} hold, as their tests said last. Made by `make systems` from `docs/systems.yaml`, which "
        "has each row's mechanism and check in words.",
        "",
    ]
    for wave, group in groupby(sorted(rows(), key=_order), key=lambda row: row["wave"]):
        members = list(group)
        lines += [f"## {wave.capitalize()}", "", SAID[wave], ""]
        lines += ["| system | paper | spec | parameters | FLOPs | check |", "|---|---|---|---|---|---|"]
        for row in members:
            lines += _lines(row, checks)
        lines.append("")
    return "\n".join(lines)


def _order(row: dict[str, Any]) -> tuple[int, str]:
    return WAVES.index(row["wave"]), row["id"]


def _lines(row: dict[str, Any], checks: dict[str, Any]) -> list[str]:
    title = row["title"].replace("|", "\\|")
    files = specs(row["id"])
    if not files:
        return [f"| {row['id']} | {title} | | | | |"]
    found = []
    for number, path in enumerate(files):
        spec = spec_of(path)
        parameters, flops = _price(spec)
        first = (row["id"], title) if number == 0 else ("", "")
        state = _state(row["id"], checks) if number == 0 else ""
        link = f"[{path.stem}](../{path.relative_to(ROOT)})"
        found.append(f"| {first[0]} | {first[1]} | {link} | {parameters:,} | {flops} | {state} |")
    return found


def _price(spec: Spec) -> tuple[int, str]:
    cost = price(spec)
    return cost.parameters, f"{cost.forward:.3g}"


def _state(row: str, checks: dict[str, Any]) -> str:
    """What the tests of a row said when they ran last, if its specs are still those."""
    told = checks.get(row)
    if told is None or not (told["passed"] or told["failed"]):
        return "no test"
    if told["failed"]:
        return f"{told['failed']} of {told['passed'] + told['failed']} tests fail"
    if told["specs"] != {path.stem: spec_of(path).full for path in specs(row)}:
        return "to be run again"
    return "holds"
