"""``archc kinds``: what a file may say, read off the kinds themselves."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from archc.files import echo_json
from archc.options import Json, Plugins
from archspec.errors import Problem, SpecError, did_you_mean


def kinds(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One kind.")] = None,
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """List the kinds by the role that they fill, or tell all about one.

    \b
        archc kinds attention
    """
    from archspec.kind import REGISTRY
    from archspec.reference import reference
    from archspec.serving import serves

    if name is None:
        found = {kind: reference(REGISTRY[kind]) for kind in sorted(REGISTRY)}
        if json:
            echo_json({kind: {"roles": page["roles"], "summary": page["summary"]} for kind, page in found.items()})
        else:
            typer.echo("\n\n".join(_list(found)))
        return
    if name not in REGISTRY:
        raise SpecError(
            Problem(f"no kind is called {name!r}", did_you_mean(name, REGISTRY) or "archc kinds lists them")
        )
    page = reference(REGISTRY[name]) | {"serves": list(serves(REGISTRY[name]))}
    if json:
        echo_json(page)
    else:
        typer.echo(_page(page))


def _list(found: dict[str, dict[str, Any]]) -> list[str]:
    """A paragraph for each role; a kind that fills several stands under its first."""
    roles: dict[str, list[str]] = {}
    for kind, page in found.items():
        roles.setdefault(page["roles"][0], []).append(kind)
    width = max(map(len, found)) + 2
    return [
        "\n".join([f"{role}:", *(f"  {kind:<{width}}{found[kind]['summary']}" for kind in names)])
        for role, names in sorted(roles.items())
    ]


def _page(page: dict[str, Any]) -> str:
    lines = [f"{page['kind']}  ({', '.join(page['roles'])})", "", page["doc"]]
    if page["serves"]:
        lines += ["", f"serves: {', '.join(page['serves'])}"]
    if page["fields"]:
        lines += ["", "fields:"]
    widths = [max((len(row[key]) for row in page["fields"]), default=0) for key in ("name", "type")]
    for row in page["fields"]:
        default = "required" if row["required"] else f"default {row['default']}" if row["default"] is not None else ""
        note = "; ".join(part for part in (default, row["description"]) if part)
        lines.append(f"  {row['name']:<{widths[0]}}  {row['type']:<{widths[1]}}  {note}".rstrip())
    if page["papers"]:
        lines += ["", "papers:", *(f"  {paper}" for paper in page["papers"])]
    lines += ["", "example:", *(f"  {line}" for line in page["example"].splitlines())]
    return "\n".join(lines)
