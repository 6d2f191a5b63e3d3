"""Numbers of a finished spec made to move, by patterns on the paths of its canonical form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from archspec.errors import Problem, SpecError, did_you_mean
from archspec.kind import lookup
from archspec.moving import is_course
from archspec.patterns import pattern, word
from archspec.source import Map, Seq, as_tree, below
from archspec.spec import Spec, from_tree

Place = tuple[str, Map, str]


def moved(spec: Spec, moves: Sequence[Any], path: str = "moves") -> Spec:
    """The spec in which numbers move: each move has a pattern under ``set`` beside what ``bind: step`` has in a spec.

    Errors:
        SpecError: a pattern that means no number, a number that may not move, a wrong course; at the move's place.
    """
    for number, move in enumerate(moves):
        place = below(path, number)
        if not isinstance(move, Map) or not isinstance(move.get("set"), str):
            mark = getattr(move, "mark", None)
            hint = '{set: "**.router.k", from: 1, to: 8}'
            raise SpecError(Problem("a move says what it sets", hint, place, mark))
        course = Map({"bind": "step"}, move.mark, place)
        for key in move:
            if key not in ("set", "bind"):
                course.put(key, move[key], move.key_marks.get(key), move.value_marks.get(key))
        tree = as_tree(spec.canonical())
        found = list(_numbers(tree, ""))
        meant = pattern(move["set"])
        hits = [one for one in found if meant.match(one[0])]
        if not hits:
            names = {part for name, _, _ in found for part in name.split(".")}
            hint = did_you_mean(word(move["set"]), names) or ""
            hint = hint if "did" in hint else "archc show --canonical prints the paths"
            raise SpecError(
                Problem(f"no number is called {move['set']!r}", hint, below(place, "set"), move.where("set"))
            )
        for _, container, key in hits:
            container.put(key, course, move.mark, move.mark)
        try:
            spec = from_tree(tree)
        except SpecError as error:
            first = error.problems[0]
            mark = first.mark or move.mark
            raise SpecError(Problem(first.cause, first.hint, place, mark)) from None
    return spec


def _numbers(raw: Any, path: str) -> Iterator[Place]:
    """The numbers of a canonical form; nodes of a graph by their names, others of a list by their place."""
    if is_course(raw):
        return
    if isinstance(raw, Map):
        for key, value in raw.items():
            inner = path if key == "graph" else below(path, key)
            if isinstance(value, (int, float)) and not isinstance(value, bool) or is_course(value):
                yield inner, raw, key
            else:
                yield from _numbers(value, inner)
        kind = lookup(raw.get("kind"))
        for key in sorted(kind.moves - raw.keys()) if kind is not None else ():  # where it is as usual
            yield below(path, key), raw, key
    elif isinstance(raw, Seq):
        for number, item in enumerate(raw):
            name = item.get("name") if isinstance(item, Map) else None
            yield from _numbers(item, below(path, str(name or number)))
