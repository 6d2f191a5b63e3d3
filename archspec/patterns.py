"""Patterns of dotted names: ``*`` stands for one part or a piece of one, ``**`` for any number of parts."""

from __future__ import annotations

import re
from functools import lru_cache


@lru_cache(maxsize=256)
def pattern(text: str, *, below: bool = False) -> re.Pattern[str]:
    """What matches the names that a pattern means, from their beginning; ``below`` also those inside of them."""
    parts = text.split(".")
    end = r"(?:\.|$)" if below else "$"
    written = []
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if part == "**":
            written.append(r".*" if last else r"(?:[^.]+\.)*")
        else:
            written.append(re.escape(part).replace(r"\*", "[^.]*") + (end if last else r"\."))
    return re.compile("".join(written))


def word(text: str) -> str:
    """The last part of a pattern that is no wildcard, for hints."""
    return next((part for part in reversed(text.split(".")) if "*" not in part), "")
