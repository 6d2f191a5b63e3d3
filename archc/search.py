"""``archc search``: the study that a file describes."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from archc.options import Freeze, Json, Plugins


class Then(StrEnum):
    train = "train"


def search(
    file: Annotated[Path, typer.Argument(metavar="STUDY", help="A study.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder of the results.")] = None,
    trials: Annotated[int | None, typer.Option("--trials", min=1, help="How many candidates are trained.")] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=0, help="Processes that train at a time; 0: this one trains.")
    ] = None,
    ray: Annotated[
        str | None, typer.Option("--ray", metavar="ADDRESS", help="Run the workers on a Ray cluster; auto finds one.")
    ] = None,
    freeze: Freeze = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Set older results aside and begin anew.")] = False,
    then: Annotated[Then | None, typer.Option("--then", help="Afterwards, train the chosen ones to the end.")] = None,
    choose: Annotated[
        str, typer.Option("--choose", help="Which: front, knee, best, or a number, spread over the front.")
    ] = "front",
    final_steps: Annotated[
        int | None, typer.Option("--final-steps", min=1, help="Optimizer steps of each; ten times the search's.")
    ] = None,
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """Search a space. Interrupted and given again, the same command goes on where it was.

    \b
        archc search examples/studies/demo.yaml
        archc search examples/studies/demo.yaml --freeze dims.width=128
        archc search examples/studies/demo.yaml --then train --choose knee
    """
    from archc.files import overrides
    from archc.report import write
    from search import final, report, runner
    from search.study import load

    study = load(file, freeze=overrides(freeze, "--freeze"))
    study = replace(study, trials=trials or study.trials, workers=study.workers if workers is None else workers)
    if then:
        final.choose([], (), choose)  # what is wrong is said before the search
        final.recipe(study, final_steps)
    elif final_steps is not None or choose != "front":
        raise typer.BadParameter("--choose and --final-steps are of --then train")
    outcome = runner.run(study, out=out, fresh=fresh, plugin_files=plugin or [], ray=ray, quiet=json)
    if then:
        try:
            final.train(study, outcome.folder, how=choose, steps=final_steps, quiet=json)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"interrupted; give the same command again to go on from {outcome.folder}"
            ) from None
    write(report.read_study(study, outcome.folder), outcome.folder, as_json=json)
