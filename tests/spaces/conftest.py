"""Spaces written as text."""

from collections.abc import Callable

import pytest

from archspec.source import Map, parse
from spaces.space import Space

HEAD = "archspace: 1\nname: test\ninterface: {kind: causal_lm, vocab: 256, length: 64}\n"


@pytest.fixture
def space() -> Callable[..., Space]:
    """A space from text without its head; not elaborated unless asked for."""

    def make(text: str, **options: Callable[[Map], object]) -> Space:
        return Space(parse(HEAD + text, "space.yaml"), **{"elaborate": lambda tree: tree, **options})  # type: ignore[arg-type]

    return make
