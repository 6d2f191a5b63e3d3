"""The command ``archc``. Each command's file is imported here, so they import what they need when they run."""

from __future__ import annotations

from typing import Annotated

import typer

from archc.calibrate import calibrate
from archc.check import check
from archc.compile import compile
from archc.cost import cost
from archc.diff import diff
from archc.export import export
from archc.generate import generate
from archc.group import Commands
from archc.import_ import import_
from archc.kinds import kinds
from archc.measure import measure
from archc.report import report
from archc.schema import schema
from archc.search import search
from archc.serve import serve
from archc.show import show
from archc.space import space
from archc.train import train

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,  # rich costs more time than a check
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    check,
    show,
    cost,
    calibrate,
    measure,
    compile,
    train,
    space,
    search,
    serve,
    report,
    diff,
    export,
    generate,
    schema,
    kinds,
):
    app.command()(command)
app.command("import")(import_)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"archc {version('archspec-nas')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Checks, prices, compiles, trains and searches architectures that are written as YAML."""
