"""The files of a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from search.durable import write_json, write_text


def write(report: dict[str, Any], folder: Path, *, html: Path | None = None) -> list[Path]:
    """Writes ``report.json``, ``report.html`` and ``pareto.png``; what was written.

    Args:
        folder: of the study.
        html: another place for the page.

    Errors:
        NotSaved: the disk is full.
    """
    from search.report.page import page
    from search.report.plot import draw  # matplotlib takes a second to import

    place = html or folder / "report.html"
    write_json(folder / "report.json", report)
    write_text(place, page(report, folder))
    written = [folder / "report.json", place]
    if report["front"]:
        draw(report, folder / "pareto.png")
        written.append(folder / "pareto.png")
    return written


def load(path: Path) -> dict[str, Any]:
    """A report that was written as JSON."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
