"""How commands end: 0, 2 for a user's error, 130 for Ctrl-C; whatever else is raised is a bug and exits 1."""

from __future__ import annotations

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from archspec.errors import SpecError


class Commands(TyperGroup):
    """The group of all commands."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SpecError as error:
            print(error, file=sys.stderr)
            raise typer.Exit(2) from None
        except KeyboardInterrupt as error:
            print(str(error) or "interrupted", file=sys.stderr)
            raise typer.Exit(130) from None
