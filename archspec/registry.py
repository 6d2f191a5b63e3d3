"""The kinds by name. A built-in one is imported when it is first asked for; who goes through all imports all."""

from __future__ import annotations

import re
from collections.abc import Iterator, MutableMapping
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from archspec.kind import Kind

KINDS = Path(__file__).parent / "kinds"
_NAMED = re.compile(r'^class [^:]*?\bkind="(\w+)"', re.MULTILINE)


class Registry(MutableMapping[str, "type[Kind]"]):
    """Kinds that register themselves by being defined, sorted by name."""

    def __init__(self) -> None:
        self._known: dict[str, type[Kind]] = {}

    @cached_property
    def homes(self) -> dict[str, str]:
        """The module of each built-in kind."""
        files = sorted(KINDS.glob("*.py"))
        return {name: file.stem for file in files for name in _NAMED.findall(file.read_text("utf-8"))}

    def __getitem__(self, name: str) -> type[Kind]:
        if name not in self._known and name in self.homes:
            import_module(f"archspec.kinds.{self.homes[name]}")
        return self._known[name]

    def __contains__(self, name: object) -> bool:
        return name in self._known or name in self.homes

    def __setitem__(self, name: str, kind: type[Kind]) -> None:
        self._known[name] = kind

    def __delitem__(self, name: str) -> None:
        del self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._known.keys() | self.homes.keys()))

    def __len__(self) -> int:
        return len(self._known.keys() | self.homes.keys())
