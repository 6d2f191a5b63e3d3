"""A user's own kinds from a file that is named on the command line, never by a spec or a study."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path

from archspec.errors import Problem, SpecError


def load_installed() -> None:
    """Imports the architecture kinds of installed packages; those of data and objectives are found when asked for."""
    for point in entry_points(group="archspec.kinds"):
        point.load()


def load(paths: Iterable[str | os.PathLike[str]]) -> None:
    """Imports Python files, each once; what they define registers itself.

    Errors:
        SpecError: a file is missing, or raises while it is imported.
    """
    for path in paths:
        place = Path(path).expanduser().resolve()
        name = f"archspec_plugin_{place.stem}_{hashlib.sha256(os.fsencode(place)).hexdigest()[:8]}"
        if name in sys.modules:
            continue
        module_spec = importlib.util.spec_from_file_location(name, place)
        if module_spec is None or module_spec.loader is None or not place.is_file():
            raise SpecError(Problem(f"there is no Python file {path}", "--plugin takes a file as my_blocks.py"))
        module = importlib.util.module_from_spec(module_spec)
        sys.modules[name] = module
        try:
            module_spec.loader.exec_module(module)
        except SpecError:
            del sys.modules[name]
            raise
        except Exception as error:
            del sys.modules[name]
            cause = f"plugin {path} failed while it was imported: {type(error).__name__}: {error}"
            raise SpecError(Problem(cause)) from error
