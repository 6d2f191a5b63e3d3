"""What the page's script tells of single trials, as data: specs, their parts, and what these cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from search.progress import lasting
from search.report.marks import Row, figure
from search.report.specs import Lines, parts, priced, short, yaml_of

PRICED = 200  # specs whose parts are priced: the front first, then the latest; each takes some 0.03 s


def details(report: Row, folder: Path) -> dict[str, Any]:
    """``lines`` of all texts; ``trials`` by number, with the numbers of their lines.

    A trial has what is told of it (``told``: name and value), its spec (``yaml``) or, where that is not here, its
    choices, its ``parts`` (name and lines) and the ``costs`` of these (parameters, FLOPs).
    """
    lines = Lines()
    ranks = {row["trial"]: row["rank"] for row in report["front"]}
    chosen = [row["trial"] for row in report["front"]]
    chosen += [row["trial"] for row in reversed(report["all"]) if row["values"] and row["trial"] not in ranks]
    costly = set(chosen[:PRICED])
    known: dict[str, dict[str, Any]] = {}
    trials: dict[str, Any] = {}
    for row in report["all"]:
        digest = row["hash"]
        if digest not in known:
            known[digest] = _of_spec(folder, digest, lines)
        mine: dict[str, Any] = {"told": _told(report, row), "rank": ranks.get(row["trial"])}
        if known[digest]:
            mine |= known[digest]
            if row["trial"] in costly:
                mine["costs"] = {part["name"]: [part["parameters"], part["flops"], part["output"]]
                                 for part in priced(folder, digest, report["train"].get("length")) or ()}  # fmt: skip
        else:
            mine["yaml"], mine["choices"] = lines.add(yaml_of(row["choices"])), True
        trials[str(row["trial"])] = mine
    return {"lines": list(lines.lines), "trials": trials}


def _of_spec(folder: Path, digest: str, lines: Lines) -> dict[str, Any]:
    spec = short(folder, digest) if digest else None
    if spec is None:
        return {}
    return {"yaml": lines.add(yaml_of(spec, dense=True)),
            "parts": [[name, lines.add(words)] for name, words in parts(spec).items()]}  # fmt: skip


def _told(report: Row, row: Row) -> list[list[str]]:
    if row["values"]:
        told = [[o["name"], figure(row["values"][o["name"]], o)] for o in report["objectives"]]
    else:
        told = [["state", row["state"]], *([["reason", row["reason"].splitlines()[0]]] if row["reason"] else ())]
    seconds = (row["seconds"] or {}).get("training")
    return told + ([["trained for", lasting(seconds)]] if seconds is not None else [])
