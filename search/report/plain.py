"""What a study found, told as text."""

from __future__ import annotations

import io
from collections import Counter
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

from search.progress import shown
from search.report import foretold, outcomes


def show(report: dict[str, Any], stream: TextIO) -> None:
    """Prints the report: with colours and lines on a terminal, as plain text elsewhere."""
    terminal = stream.isatty()
    console = Console(file=stream, width=None if terminal else 10_000, no_color=not terminal, highlight=False)
    counts = ", ".join(f"{count} {name}" for name, count in report["trials"].items() if count)
    console.print(f"study {report['study']}: {counts or 'no trials'}", markup=False, soft_wrap=True)
    if report["front"]:
        console.print(_table(report, terminal))
    if report["survey"]:
        console.print(outcomes.kept(report["survey"]), markup=False, soft_wrap=True)
    for name, count in report["refused"].items():
        console.print(f"{count:,} of {report['draws']:,} draws refused: {name}", markup=False, soft_wrap=True)
    if report["together"]:
        console.print(outcomes.together(report["together"]), markup=False, soft_wrap=True)
    for name, told in report["surrogates"].items():
        console.print(f"{name}: {foretold.ranked(told)}", markup=False, soft_wrap=True)
    reasons = Counter(row["reason"].splitlines()[0] for row in report["all"] if row["state"] == "failed")
    for reason, count in reasons.most_common():
        console.print(f"{count} failed: {reason}", markup=False, soft_wrap=True)
    if report["exhausted"]:
        console.print(f"the space is exhausted: {report['exhausted']}", markup=False, soft_wrap=True)
    for one in report["final"]:
        then = "  ".join(f"{o['name']} {shown(one['searched'][o['name']], o['unit'])} → "
                         f"{shown(one['values'][o['name']], o['unit'])}" for o in report["objectives"])  # fmt: skip
        console.print(f"after {one['steps']:,} steps: {then}  {one['folder']}", markup=False, soft_wrap=True)
    if report["text"]:
        console.print("the first one writes:", markup=False, soft_wrap=True)
        for line in report["text"].split("\n"):
            # A model may write what a terminal would obey.
            console.print(
                "  | " + "".join(sign if sign.isprintable() else "\N{MIDDLE DOT}" for sign in line), markup=False
            )
    for command in report["next"]:
        console.print(f"next: {command}", markup=False, soft_wrap=True)


def text(report: dict[str, Any]) -> str:
    """What `show` prints to a file."""
    stream = io.StringIO()
    show(report, stream)
    return stream.getvalue()


def _table(report: dict[str, Any], terminal: bool) -> Table:
    table = Table(
        title="Pareto front" if terminal else None, box=None if not terminal else Table().box, pad_edge=terminal
    )
    arrows = {"minimize": "min", "maximize": "max"}
    table.add_column("rank", justify="right")
    table.add_column("trial", justify="right")
    for objective in report["objectives"]:
        table.add_column(f"{objective['name']} ({arrows[objective['direction']]})", justify="right")
    beside = list(report["front"][0]["side_by_side"])
    for name in beside:
        table.add_column(f"{name}, side by side", justify="right")
    table.add_column("spec", overflow="fold")
    for row in report["front"]:
        figures = [shown(row["values"][o["name"]], o["unit"]) for o in report["objectives"]]
        again = [
            f"{row['side_by_side'][name]['median_ms']:.4g} ms" if row["side_by_side"].get(name) else ""
            for name in beside
        ]
        table.add_row(str(row["rank"]), str(row["trial"]), *figures, *again, row["spec"] or "(on another machine)")
    return table
