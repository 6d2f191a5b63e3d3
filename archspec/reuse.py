"""Rounds that come out the same in many trees, elaborated once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from archspec.graph import Graph
from archspec.scope import Frame
from archspec.streams import Stream

LARGEST = 20_000  # places


@dataclass(frozen=True)
class Round:
    """An elaborated body.

    Attributes:
        layers: how many layers are in it.
        called: the blocks that it calls.
        read: types of the streams that it reads from outside, by name.
    """

    graph: Graph
    layers: int
    called: frozenset[str]
    read: dict[str, Stream]


Found = dict[Hashable, list[Round]]


class Rounds:
    """The rounds of trees that differ in nothing but their graphs.

    Args:
        found: those known, by what says all of their place but the types of what they read from outside.
        text: of a body as it stands in the file; the same text for the same content.
    """

    def __init__(self, found: Found, text: Callable[[Any], str]) -> None:
        self.found, self.text = found, text

    def recall(self, key: Hashable, frame: Frame) -> Round | None:
        """A body that was elaborated where it reads the same from outside."""
        for one in self.found.get(key, ()):
            streams = {name: frame.resolve(name) for name in one.read}
            if all(found is not None and found[1] == one.read[name] for name, found in streams.items()):
                return one
        return None

    def keep(self, key: Hashable, one: Round) -> None:
        """Puts a body under a key."""
        if len(self.found) >= LARGEST:
            self.found.clear()
        self.found.setdefault(key, []).append(one)
