"""What a study found, as one page of HTML that needs nothing beside itself.

Drawings are made here and stand without a script; the script beside tells a trial's spec when it is pointed at, follows
it through the drawings, and holds two specs side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from search.page import document, figures, section
from search.progress import lasting
from search.report import course, curves, foretold, fronts, importance, outcomes, parallel
from search.report.details import details
from search.report.marks import Row
from search.report.specs import embedded


def page(report: Row, folder: Path) -> str:
    """The page of a study.

    Args:
        report: as `search.report.build` gives it.
        folder: of the study, with what its trials left.
    """
    shares = importance.shares(report)
    own = files("search.report")
    parts = [
        _head(report),
        _part("The front", _front_words(report), fronts.drawings(report) + fronts.table(report)),
        _part("Trained to the end", "What the chosen ones reached in the search, and what after more steps.",
              fronts.finals(report)),
        _part("Progress", _progress_words(report), course.drawings(report)),
        _part("What matters", "The share of each choice in what sets the better trials apart from the others, for "
              "each objective by itself (PED-ANOVA).",
              importance.drawings(report, shares) if report["all"] else ""),
        _part("All trials, choice by choice", "A line for each complete trial. Drag along an axis to keep the lines "
              "that pass there; click the axis to let go.", parallel.drawing(report, shares)),
        _part("Two architectures, block by block", "Choose two, or click points in any drawing. Fields that are as "
              "usual are left out; what differs is coloured.", _compare(report)),
        _part("Predicted and true", "The closer to the dashed line, the better; bars are the intervals that were told.",
              foretold.drawings(report)),
        _part("Learning curves", "", curves.drawings(report, folder)),
        _part("Accepted, refused, failed", _outcome_words(report), outcomes.drawing(report)),
        _part("How to go on", "", "".join(f"<pre>{escape(command)}</pre>" for command in report["next"])),
        f'<script type="application/json" id="details">{embedded(details(report, folder))}</script>'
        '<div id="card" hidden></div>',
    ]  # fmt: skip
    return document(
        f"{report['study']}: study", [part for part in parts if part],
        style=own.joinpath("page.css").read_text(encoding="utf-8"),
        script=own.joinpath("page.js").read_text(encoding="utf-8"),
    )  # fmt: skip


def _part(title: str, words: str, body: str) -> str:
    return section(title, words, body) if body else ""


def _head(report: Row) -> str:
    counts: Mapping[str, int] = report["trials"]
    total = sum(counts.values())
    told = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    tiles = [("trials", f"{total:,}", told), ("on the front", f"{len(report['front']):,}", "")]
    tiles += fronts.best(report)
    if report["acceptance"] is not None:
        tiles.append(("draws accepted", f"{report['acceptance']:.0%}", f"of {report['draws']:,}"))
    seconds = sum((row["seconds"] or {}).get("training") or 0.0 for row in report["all"])
    if seconds:
        tiles.append(("time of training", lasting(seconds),
                      "all workers together"))  # fmt: skip
    wanted = ", ".join(f"{o['name']} ({'lower' if o['direction'] == 'minimize' else 'higher'} is better)"
                       for o in report["objectives"])  # fmt: skip
    ended = f"<p>The space is exhausted: {escape(report['exhausted'])}</p>" if report["exhausted"] else ""
    return (
        f"<h1>{escape(report['study'])}</h1><p>A search for {escape(wanted) or 'nothing yet'}; "
        f"results in {escape(report['folder'])}</p>{ended}{figures(tiles)}"
    )


def _front_words(report: Row) -> str:
    counts = report["trials"]
    missing = [f"{counts[name]:,} {name}" for name in ("failed", "running", "stopped") if counts.get(name)]
    refused = max(0, report["draws"] - sum(counts.values()))
    missing += [f"{refused:,} refused before a trial"] if refused else []
    without = f" Without a point, as they have no values: {', '.join(missing)}." if missing else ""
    return f"Trials that no other beats in every objective. Point at one for its spec, click to keep it.{without}"


def _progress_words(report: Row) -> str:
    if len(report["objectives"]) == 1:
        return "The best value so far."
    return (
        "The hypervolume that the front dominates, as a share of the box between the best value of each objective "
        "and a reference point: what the study says is the worst; else the worst of the last front or the middle of "
        "all trials, whichever is worse, and a tenth of the range beyond."
    )


def _outcome_words(report: Row) -> str:
    if report["acceptance"] is None:
        return ""
    return (
        f"{report['draws']:,} candidates were drawn, {report['acceptance']:.0%} of them became trials. "
        "Constraints refuse before anything is trained."
    ) + (f" {outcomes.together(report['together'])}." if report["together"] else "")


def _compare(report: Row) -> str:
    ranks = {row["trial"]: row["rank"] for row in report["front"]}
    rows: list[dict[str, Any]] = sorted(report["all"], key=lambda row: (ranks.get(row["trial"], 1 << 30), row["trial"]))
    if len(rows) < 2:
        return ""

    def name(row: Row) -> str:
        rank = ranks.get(row["trial"])
        return f"trial {row['trial']}" + (f", rank {rank}" if rank else "") + (
            "" if row["values"] else f", {row['state']}")  # fmt: skip

    options = "".join(f'<option value="{row["trial"]}">{escape(name(row))}</option>' for row in rows)
    return (
        f'<div id="compare"><label>A <select id="one">{options}</select></label> '
        f'<label>B <select id="other">{options}</select></label> <button id="swap" type="button">swap</button>'
        '<div class="wide"><table id="told"></table><table id="parts"></table></div></div>'
    )
