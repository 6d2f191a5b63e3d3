"""Kinds, objectives and data of others: entry points of installed packages, and files named with ``--plugin``.

A YAML file never names code. What a plug-in registers is called ``vendor/kind``, so that installing one changes the
meaning of no file.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

from archspec.errors import Problem, SpecError
from archspec.kind import REGISTRY
from search import plugins

GROUP = "archspec.kinds"  # objectives and data have groups of their own, which search.kinds reads when it needs them


def load(paths: list[Path] | None) -> list[Path]:
    """Loads all plug-ins, before a command reads anything.

    Errors:
        SpecError: one is missing, raises while it is imported, or takes a name that is not its own.
    """
    for point in entry_points(group=GROUP):
        _named(f"entry point {point.name}", lambda: _entry(point))  # noqa: B023 -- called at once
    for path in paths or []:
        _named(f"plug-in {path}", lambda: plugins.load([path]))  # noqa: B023 -- called at once
    return paths or []


def _entry(point: object) -> None:
    try:
        point.load()  # type: ignore[attr-defined]
    except SpecError:
        raise
    except Exception as error:
        cause = f"entry point {point.name} failed: {type(error).__name__}: {error}"  # type: ignore[attr-defined]
        raise SpecError(Problem(cause, "repair or remove the package that declares it")) from error


def _named(source: str, importing: Callable[[], None]) -> None:

    before = set(REGISTRY)
    importing()
    for name in sorted(set(REGISTRY) - before):
        if "/" not in name:
            cause = f"{source} registers a kind called {name!r}"
            raise SpecError(Problem(cause, f"kinds of your own are called vendor/kind, as mine/{name}"))
