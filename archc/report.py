"""``archc report``: what a study found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from archc.files import echo_json
from archc.options import Json, Plugins


def report(
    place: Annotated[Path, typer.Argument(metavar="DIR|STUDY", help="A folder of results, or the study's file.")],
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """Report what a study found so far: the Pareto front, what failed, what was refused; writes report.json and a plot.

    \b
        archc report runs/demo
    """
    raise NotImplementedError
