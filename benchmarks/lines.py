"""How much Python each system of sequences took beside its YAML: lines of its kinds' schemas and modules.

    python -m benchmarks.lines

Lines of code, without comments, docstrings and blank lines, that define kinds which were not there before these
systems; what several of them use, such as the rest of a file, counts for the first in docs/systems.yaml that does.
Fields that were added to kinds which were there are in the last line: they belong to several. It reads the history of
the repository.
"""

from __future__ import annotations

import ast
import io
import statistics
import subprocess
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

import compiler  # noqa: F401  (its modules are tied to the kinds that they compute)
from archspec.kind import REGISTRY
from benchmarks.timing import report
from compiler.registry import MODULES
from docs.systems import ROOT, rows, specs

BEFORE = "903ff4a^"
"""The last state without any of these systems."""
FLOORS = ("archspec/kinds", "compiler/modules")
FIELDS = {"ssa_information_pathways": ["compiler/modules/subsample.py"]}
"""Files for a field of a kind that was there."""


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True, cwd=ROOT).stdout


@cache
def new_kinds() -> set[str]:
    """The names of the kinds that came since."""
    found = _git("grep", "-hoE", r'kind="[a-z_0-9/]+"', BEFORE, "--", FLOORS[0])
    return set(REGISTRY) - {line.split('"')[1] for line in found.splitlines()}


@cache
def old_files() -> set[str]:
    return set(_git("ls-tree", "--name-only", BEFORE, *(f"{floor}/" for floor in FLOORS)).split())


def code(path: str) -> set[int]:
    """The numbers of a file's lines that are code."""
    text = (ROOT / path).read_text()
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    found: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in skipped:
            found |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):  # docstrings, and those below constants
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            found -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return found


def places(kind: str) -> Iterator[tuple[str, str | None]]:
    """The classes of a kind, and what else is in their files where those were not there before."""
    for one in (REGISTRY[kind], MODULES.get(REGISTRY[kind])):
        if one is not None:
            path = f"{one.__module__.replace('.', '/')}.py"
            yield path, one.__name__
            if path not in old_files():
                yield path, None


@cache
def tied() -> set[tuple[str, str]]:
    """Files and names of the classes that are a kind's."""
    both = [*REGISTRY.values(), *MODULES.values()]
    return {(f"{one.__module__.replace('.', '/')}.py", one.__name__) for one in both}


def lines(path: str, name: str | None) -> int:
    """Lines of code of a class, or of all in a file that is in no kind's class."""
    found, rest = code(path), code(path)
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.ClassDef):
            span = set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
            if node.name == name:
                return len(found & span)
            if (path, node.name) in tied():
                rest -= span
    return len(rest)


def words(tree: Any) -> Iterator[str]:
    """All strings of a file that are no keys."""
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, (list, dict)):
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from words(part)


def used(path: Path) -> set[str]:
    """The new kinds of a spec or a space."""
    return set(words(yaml.safe_load(path.read_text()))) & new_kinds()


def main() -> None:
    known: set[tuple[str, str | None]] = set()
    found: list[dict[str, Any]] = []
    for row in rows():
        files = specs(row["id"])
        if row["wave"] != "sequences" or not files:
            continue
        kinds = sorted(set().union(*map(used, files)))
        mine = {place for kind in kinds for place in places(kind)} | {(p, None) for p in FIELDS.get(row["id"], [])}
        count = sum(lines(*place) for place in mine - known)
        known |= mine
        found.append({"system": row["id"], "lines of Python": count, "new kinds": ", ".join(kinds)})
    counts = [row["lines of Python"] for row in found]
    added = [line.split()[0] for line in _git("diff", "--numstat", BEFORE, "--", *sorted(old_files())).splitlines()]
    summary = {
        "median": int(statistics.median(counts)), "share without": f"{100 * counts.count(0) / len(counts):.0f} %",
        "largest": max(counts), "lines added to files that were there": sum(map(int, added)),
    }  # fmt: skip
    found.sort(key=lambda row: row["lines of Python"])
    report("lines", [*found, *({"system": name, "lines of Python": value} for name, value in summary.items())])


if __name__ == "__main__":
    main()
