"""What a user is told: one cause, one place, one hint.

Printed as::

    examples/tiny.yaml:14:18  graph[2].body.mixer.kv_heads
      12 heads cannot be shared by 5 key/value heads
      try kv_heads: 1, 2, 3, 4, 6 or 12
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NamedTuple


class Mark(NamedTuple):
    """A place in a file; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class Problem(NamedTuple):
    """One thing that is wrong: its cause, a way out, and where."""

    cause: str
    hint: str | None = None
    path: str = ""
    mark: Mark | None = None

    def __str__(self) -> str:
        where = "  ".join(str(part) for part in (self.mark, self.path) if part)
        lines = [where] if where else []
        lines.append(f"  {self.cause}")
        if self.hint:
            lines.append(f"  {self.hint}")
        return "\n".join(lines)


class SpecError(ValueError):
    """All independent problems of one file."""

    def __init__(self, *problems: Problem) -> None:
        assert problems
        self.problems = tuple(dict.fromkeys(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Refused(ValueError):
    """A kind refuses the value of one of its fields; the place in the file is added by the elaborator.

    Args:
        field: the field that is wrong, ``""`` for the node as a whole.
        cause: one sentence.
        try_: values that would be accepted, or a sentence.
    """

    def __init__(self, field: str, cause: str, try_: object = None) -> None:
        super().__init__(cause)
        self.field, self.cause = field, cause
        self.hint: str | None
        if try_ is None:
            self.hint = None
        elif isinstance(try_, str):
            self.hint = try_
        else:
            values = [try_] if isinstance(try_, (int, float)) else list(try_)  # type: ignore[call-overload]
            self.hint = f"try {field}: {either(values)}" if values else None


def either(values: Iterable[object]) -> str:
    """``1, 2 or 3``; long lists keep their ends."""
    words = [str(value) for value in values]
    if len(words) > 9:
        words = [*words[:4], "…", *words[-4:]]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def divisors(number: int) -> list[int]:
    """All positive divisors, ascending."""
    small = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return sorted({*small, *(number // d for d in small)})


def did_you_mean(word: str, candidates: Iterable[str]) -> str | None:
    """A hint that names the nearest candidates, or all of them when none is near and they are few."""
    names = sorted(set(candidates))
    near = difflib.get_close_matches(word, names, n=2, cutoff=0.6)
    if near:
        return f"did you mean {either(near)}?"
    return f"there {'is' if len(names) == 1 else 'are'} {', '.join(names)}" if 0 < len(names) <= 12 else None
