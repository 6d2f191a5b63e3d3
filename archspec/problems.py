"""Everything that is wrong with one file, each thing with its place.

Raised together, so that a user mends a file once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from archspec.errors import Mark, Problem, Refused, SpecError, did_you_mean
from archspec.kind import REGISTRY, Kind, kinds_of, lookup
from archspec.source import Map, Seq


class Problems:
    """Collects problems; a problem is told by the container in which it stands and its key."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def problem(self, container: Map | Seq, key: str | int, cause: str, hint: str | None = None) -> None:
        """A problem with the value at ``container[key]``, or with the container where the key is empty."""
        mark = container.where(key)  # type: ignore[arg-type]
        path = container.path_of(key) if key != "" else container.path  # type: ignore[arg-type]
        self.problems.append(Problem(cause, hint, path, mark))

    def unknown_field(self, raw: Map, key: str, known: Iterable[str], of: str = "") -> None:
        """A problem with a key rather than with its value."""
        cause = f"unknown field {key!r}" + (f" of {of}" if of else "")
        hint = did_you_mean(key, known)
        kind = lookup(of)
        if key == "memory" and kind is not None and "mixer" in kind.roles:
            cause = f"{of} reads its own tokens alone, it serves no cross-attention"
            hint = f"try {' or '.join(name for name in kinds_of('mixer') if 'memory' in REGISTRY[name].slots)}"
        mark = raw.key_marks.get(key) or raw.mark
        self.problems.append(Problem(cause, hint, raw.path_of(key), mark))

    def keys(self, raw: Map, known: tuple[str, ...]) -> None:
        for key in raw:
            if key not in known:
                self.unknown_field(raw, key, known)

    def invalid(self, raw: Map, kind: type[Kind], detail: Any) -> None:
        """One problem for one pydantic error: union tags stripped, the deepest place that the file knows."""
        container: Map | Seq = raw
        key: Any = detail["loc"][0] if detail["loc"] else ""
        for part in detail["loc"][1:]:
            inner = container[key] if isinstance(container, Map) and key in container else None
            if isinstance(inner, Map) and part in inner or isinstance(inner, Seq) and isinstance(part, int):
                container, key = inner, part
        if any(p.path == container.path_of(key) for p in self.problems):
            return  # a union reports each of its members
        cause, hint = _explain(detail, key)
        self.problem(container, key, cause, hint)

    def refused(self, raw: Map, refused: Refused) -> None:
        container: Map | Seq = raw
        parts = refused.field.split(".")
        for part in parts[:-1]:
            if isinstance(container, Map) and isinstance(container.get(part), (Map, Seq)):
                container = container[part]
        self.problem(container, parts[-1] if parts[-1] in raw or container is not raw else (parts[-1] or "kind"),
                     refused.cause, refused.hint)  # fmt: skip

    def raise_all(self) -> None:
        """Raises what was found, in the order of the file."""
        if self.problems:
            raise SpecError(*sorted(self.problems, key=lambda problem: problem.mark or Mark("", 0, 0)))


_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "a word",
    "dict": "a mapping",
    "list": "a list",
    "model": "a mapping",
}
_BOUNDS = {
    "greater_than_equal": "at least",
    "greater_than": "more than",
    "less_than_equal": "at most",
    "less_than": "less than",
}


def _explain(detail: Any, key: str) -> tuple[str, str | None]:
    """A pydantic error in our words."""
    what, given, context = detail["type"], detail.get("input"), detail.get("ctx", {})
    shown = "a mapping" if isinstance(given, dict) else "a list" if isinstance(given, list) else repr(given)
    if what == "union_tag_not_found":
        return f"{key} needs a kind", "add kind: …"
    if what == "union_tag_invalid":
        words = [word.strip("'") for word in context["expected_tags"].split(", ")]
        return f"no {key} is called {context['tag']!r}", did_you_mean(
            context["tag"], words
        ) or f"try {', '.join(words)}"
    if what == "missing":
        return f"{key!r} is missing", f"add {key}: …"
    if what == "literal_error":
        words = [word.strip("'") for word in context["expected"].replace(" or ", ", ").split(", ")]
        return f"{shown} is none of the values of {key}", did_you_mean(str(given), words) or f"try {', '.join(words)}"
    if what in _BOUNDS:
        limit = next(iter(context.values()))
        return f"{shown} is out of range", f"{key} must be {_BOUNDS[what]} {limit:,}"
    for start, name in _TYPES.items():
        if what.startswith(start + "_"):
            return f"{shown} is not {name}", None
    if what == "extra_forbidden":
        return f"unknown field {key!r}", None
    return f"{shown} does not fit: {detail['msg'][:1].lower()}{detail['msg'][1:]}", None
