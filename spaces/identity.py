"""When two trees are the same: equal values in equal places, wherever they stand in a file."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any


def identity(tree: Any) -> Hashable:
    """A hashable value, equal for equal trees; ``true`` is not 1, 2 is 2.0, the order of keys does not count."""
    if isinstance(tree, dict):
        return frozenset((key, identity(value)) for key, value in tree.items())
    if isinstance(tree, list):
        return tuple(identity(value) for value in tree)
    return (bool, tree) if isinstance(tree, bool) else tree
