"""Writes the pages that are made: ``reference.md``, every kind with its fields, paper and example, and ``systems.md``.

python -m docs.build
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from archspec.kind import REGISTRY
from archspec.reference import reference
from archspec.serving import serves
from docs import systems

PAGE = Path(__file__).parent / "reference.md"


def page() -> str:
    """The reference of all built-in kinds, a family a section."""
    kinds = sorted((reference(kind) for kind in REGISTRY.values()), key=lambda kind: (kind["family"], kind["kind"]))
    lines = ["# Kinds", "", "Made from the code by `make docs`; `archc kinds NAME` prints the same.", ""]
    for family, members in groupby(kinds, key=lambda kind: kind["family"]):
        lines += [f"## {family.replace('_', ' ').capitalize()}", ""]
        for kind in members:
            lines += [f"### `{kind['kind']}`", "", kind["doc"], ""]
            if patterns := serves(REGISTRY[kind["kind"]]):
                lines += [f"Serves: {', '.join(patterns)}.", ""]
            if kind["fields"]:
                lines += ["| field | takes | default | |", "|---|---|---|---|"]
                for field in kind["fields"]:
                    cells = (f"`{field['name']}`", field["type"], field.get("default"), field.get("description"))
                    lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
                lines.append("")
            lines += ["```yaml", kind["example"], "```", ""]
    return "\n".join(lines)


def _cell(value: object) -> str:
    return "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    PAGE.write_text(page())
    systems.PAGE.write_text(systems.page())
