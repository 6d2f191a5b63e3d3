"""``archc show``: what a spec is made of."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archc.files import echo_json, spec, write
from archc.options import Json, Plugins, Set

if TYPE_CHECKING:
    from archspec.show import Line
    from archspec.spec import Spec


class Drawing(StrEnum):
    mermaid = "mermaid"
    svg = "svg"


def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A spec.")],
    canonical: Annotated[bool, typer.Option("--canonical", help="Print the canonical form, as YAML.")] = False,
    graph: Annotated[Drawing | None, typer.Option("--graph", help="Draw the graph.")] = None,
    code: Annotated[bool, typer.Option("--code", help="Print the code that was traced.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write to a file.")] = None,
    set: Set = None,
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """Show a spec: a tree with the type of every stream and the number of parameters, or a drawing.

    \b
        archc show examples/tiny.yaml
        archc show examples/tiny.yaml --graph svg -o tiny.svg
    """
    if sum((canonical, graph is not None, code)) > 1:
        raise typer.BadParameter("give one of --canonical, --graph and --code")
    checked = spec(file, set)
    if json:
        echo_json(checked.canonical() if canonical else [asdict(line) for line in _lines(checked)])
        return
    if canonical:
        text = _yaml(checked)
    elif graph is not None:
        text = _drawing(checked, graph)
    elif code:
        text = _code(checked)
    else:
        from archspec import show as tree

        text = tree.text(checked, _sizes(checked)) + "\n"
    if out is None:
        typer.echo(text, nl=False)
    else:
        write(out, text)


def _lines(checked: Spec) -> list[Line]:
    from archspec import show as tree

    return list(tree.lines(checked, _sizes(checked)))


def _sizes(checked: Spec) -> dict[str, int]:
    """Numbers of values of all parameters, each shared one once."""
    import compiler

    return {name: value.numel() for name, value in compiler.compile(checked, device="meta").named_parameters()}


def _yaml(checked: Spec) -> str:
    from archspec.canonical import text

    return text(checked.canonical())


def _drawing(checked: Spec, form: Drawing) -> str:
    from archspec import draw

    return draw.mermaid(checked) if form == Drawing.mermaid else draw.svg(checked)


def _code(checked: Spec) -> str:
    """The model's code, and that of each distinct block once."""
    from torch import fx

    import compiler

    model = compiler.compile(checked, device="meta")
    seen: set[str] = set()
    parts = []
    for name, module in model.named_modules():
        if isinstance(module, fx.GraphModule) and module.code not in seen:
            seen.add(module.code)
            parts.append(f"# {name or checked.name}\n{module.code.strip()}\n")
    return "\n\n".join(parts)
