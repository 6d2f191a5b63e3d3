"""``archc diff``: in what two architectures differ."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archc.files import echo_json, spec
from archc.options import Json, Plugins

if TYPE_CHECKING:
    from archspec.spec import Spec


def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="A spec.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another spec.")],
    cost: Annotated[bool, typer.Option("--cost", help="Also tell how FLOPs, memory and latency differ.")] = False,
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """Tell in what two architectures differ: nodes, fields, types and sizes, not lines of text.

    \b
        archc diff small.yaml large.yaml
    """
    from archspec.diff import diff, verdict

    old, new = spec(a), spec(b)
    changes = diff(old, new)
    same = old.structure == new.structure
    figures = {} if same else _figures(old, new, cost)
    if json:
        echo_json({"verdict": verdict(old, new), "same_structure": same, "same_full": old.full == new.full,
                   "changes": [asdict(change) for change in changes], "figures": figures})  # fmt: skip
        return
    typer.echo(verdict(old, new))
    for change in changes:
        typer.echo(f"  {change}")
    for name, (before, after) in figures.items():
        share = f" ({after / before - 1:+.1%})" if before else ""
        typer.echo(f"  {name}: {before:,} → {after:,}{share}")


def _figures(old: Spec, new: Spec, cost: bool) -> dict[str, tuple[Any, Any]]:
    """Figures of both, those that differ."""
    if cost:
        from search.cost.price import price

        pairs = zip(_flat("", price(old).as_dict()), _flat("", price(new).as_dict()), strict=False)
        found = {name: (before, after) for (name, before), (_, after) in pairs}
    else:
        import compiler

        sizes = [sum(p.numel() for p in compiler.compile(one, device="meta").parameters()) for one in (old, new)]
        found = {"parameters": (sizes[0], sizes[1])}
    return {name: pair for name, pair in found.items() if pair[0] != pair[1]}


def _flat(path: str, value: Any) -> list[tuple[str, Any]]:
    """The numbers of nested figures, by path; what was assumed is no figure."""
    if isinstance(value, dict):
        return [
            row
            for key, part in value.items()
            if key != "assumptions"
            for row in _flat(f"{path}.{key}".strip("."), part)
        ]
    return [(path, value)] if isinstance(value, (int, float)) and path != "schema" else []
