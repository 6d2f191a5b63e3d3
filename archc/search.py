"""``archc search``: the study that a file describes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from archc.options import Json, Plugins


def search(
    file: Annotated[Path, typer.Argument(metavar="STUDY", help="A study.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder of the results.")] = None,
    trials: Annotated[int | None, typer.Option("--trials", min=1, help="How many candidates are trained.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes that train at a time.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Set older results aside and begin anew.")] = False,
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """Search a space. Interrupted and given again, the same command goes on where it was.

    \b
        archc search examples/studies/demo.yaml
    """
    from archc.report import write
    from search import report, runner
    from search.study import load

    study = load(file)
    study = replace(study, trials=trials or study.trials, workers=workers or study.workers)
    outcome = runner.run(study, out=out, fresh=fresh, plugin_files=plugin or [], quiet=json)
    write(report.read(outcome.folder), outcome.folder, as_json=json)
