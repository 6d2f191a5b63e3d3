"""``archc report``: what a study found."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from archc.files import echo_json
from archc.options import Json, Plugins


def report(
    place: Annotated[Path, typer.Argument(metavar="DIR|STUDY", help="A folder of results, or the study's file.")],
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Of the page; report.html of the folder by default.")
    ] = None,
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """Report what a study found so far: the Pareto front, what failed and what was refused.

    Writes report.html, report.json and pareto.png into the folder of the results. The page needs no network: it has the
    front with all trials and their specs, what matters, and any two architectures side by side.

    \b
        archc report runs/demo
    """
    from search import report as reports

    if place.is_dir() or not place.exists():
        write(reports.read(place), place, as_json=json, html=html)
    else:
        write(*_of_study(place), as_json=json, html=html)


def write(found: dict[str, Any], folder: Path, *, as_json: bool, html: Path | None = None) -> None:
    """Prints a report and writes its files."""
    from search import report as reports

    files = reports.write(found, folder, html=html)
    if as_json:
        echo_json(found)
        return
    reports.show(found, sys.stdout)
    typer.echo("written: " + ", ".join(map(str, files)))


def _of_study(file: Path) -> tuple[dict[str, Any], Path]:
    """The report of a study file, whose trials may be in a database elsewhere."""
    from search import report as reports
    from search.study import load

    study = load(file)
    folder = Path("runs") / study.name
    return reports.read_study(study, folder), folder
