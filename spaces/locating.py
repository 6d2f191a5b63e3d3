"""Which member of a space a spec is: the choices that make its tree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from archspec.errors import Problem, SpecError
from archspec.source import Map, Seq
from spaces.candidate import Candidate
from spaces.choices import Alternative, Code, Constant, Node, Part, Product, Rounds
from spaces.identity import identity
from spaces.members import Numbers, assignments, rounds
from spaces.ranges import Range
from spaces.space import Space

OWN = ("archspec", "name", "description", "dims")  # what the root of a spec says for itself, or is matched before
LOOPED = ("times", "body", "overrides")  # what the rounds of a loop become
TRIED = 10_000

Codes = Mapping[int, Code]


def locate(space: Space, tree: Map) -> Candidate:
    """The member whose tree is that of a spec; name and description do not count.

    The spec is written as the space is: with its blocks, and a round after the other where every round chooses for
    itself, as the specs of its members are.

    Errors:
        SpecError: no choices make this tree.
    """
    dims = tree.get("dims", Map())
    numbers: Numbers = space.dims.numbers(dims, tuple(space.dims.names)) if isinstance(dims, Map) else {}
    start = space.dims.product.size
    wanted = _said(tree)
    both = (
        {**own, **codes}
        for own in _mapping(space.dims.product, dims, 0, numbers)
        for codes in _mapping(space.root, tree, start, numbers, OWN)
    )
    for found in islice(both, TRIED):
        try:
            candidate = space.walk(found.__getitem__)
        except (SpecError, KeyError):
            continue
        if _said(candidate.tree) == wanted:
            return candidate
    raise SpecError(Problem(f"this spec is no member of {space.name}", "archc diff tells it from one", mark=tree.mark))


def _said(tree: Map) -> Any:
    return identity({key: value for key, value in tree.items() if key not in ("archspec", "name", "description")})


def _matches(node: Node, value: Any, at: int, dims: Numbers) -> Iterator[Codes]:
    """Codes under which a value stands at a node; constraints do not count."""
    if isinstance(node, Constant):
        if identity(node.value) == identity(value):
            yield {}
    elif isinstance(node, Range):
        code = _drawn(node, value, dims)
        if code is not None:
            yield {at: code}
    elif isinstance(node, Alternative):
        for number, option in enumerate(node.options):
            for inner in _matches(option, value, at + node.offsets[number], dims):
                yield {at: number, **inner}
    elif isinstance(node, Product):
        if isinstance(node.template, Seq):
            if isinstance(value, Seq):
                parts: dict[Any, Part] = {part.key: part for part in node.parts}
                yield from _list(node, parts, 0, value, 0, at, dims)
        elif isinstance(value, Map):
            yield from _mapping(node, value, at, dims)


def _drawn(node: Range, value: Any, dims: Numbers) -> Code:
    if node.symbolic:
        number, _, name = value.partition(" * ") if isinstance(value, str) else ("", "", "")
        try:
            value = float(number) if name == node.of else None
        except ValueError:
            return None
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    if node.of is not None and not node.symbolic:
        if not dims.get(node.of):
            return node.default
        value = value / dims[node.of]
    return node.nearest(value)


def _mapping(
    node: Product, value: Mapping[str, Any], at: int, dims: Numbers, own: Sequence[str] = ()
) -> Iterator[Codes]:
    parts = {str(part.key): part for part in node.parts if part.shown}
    bodies = node.rounds.node if node.rounds is not None else None
    template: Mapping[Any, Any] = node.template  # type: ignore[assignment]
    looped = LOOPED if isinstance(bodies, Rounds) and not bodies.listed else ()
    keys = {*(key for key in template if key not in own), *parts, *looped} - ({"rounds"} if looped else set())
    if keys != {key for key in value if key not in own}:
        return
    for key, said in value.items():
        if key not in (*own, *parts, *looped) and identity(template[key]) != identity(said):
            return
    yield from _parts(list(node.parts), node, value, at, dims)


def _parts(left: list[Part], node: Product, value: Mapping[str, Any], at: int, dims: Numbers) -> Iterator[Codes]:
    if not left:
        yield {}
        return
    part, *others = left
    if isinstance(part.node, Rounds):
        found = _bodies(part.node, _items(part.node, value), 0, at + part.offset, dims)
    elif not part.shown:
        found = _times(node, part, len(_items(node.rounds.node, value)), at, dims)  # type: ignore[union-attr, arg-type]
    else:
        found = _matches(part.node, value[str(part.key)], at + part.offset, dims)
    for codes in found:
        for more in _parts(others, node, value, at, dims):
            yield {**codes, **more}


def _items(node: Rounds, value: Mapping[str, Any]) -> list[Any]:
    """The bodies, round by round."""
    if node.listed:
        return list(value["rounds"])
    others = value["overrides"]
    return [others.get(str(turn), value["body"]) for turn in range(value["times"])]


def _bodies(node: Rounds, items: list[Any], turn: int, at: int, dims: Numbers) -> Iterator[Codes]:
    if turn == len(items):
        yield {}
    elif turn < node.most:
        for codes in _matches(node.body, items[turn], at + turn * node.body.size, dims):
            for more in _bodies(node, items, turn + 1, at, dims):
                yield {**codes, **more}


def _times(node: Product, part: Part, wanted: int, at: int, dims: Numbers) -> Iterator[Codes]:
    """Codes of the number of rounds."""
    for chosen in assignments(part.node):
        codes: list[Code] = [None] * node.size
        codes[part.offset : part.offset + part.node.size] = chosen
        if rounds(node, codes, 0, dims) == wanted:
            yield {at + part.offset + number: code for number, code in enumerate(chosen) if code is not None}


def _list(
    node: Product, parts: Mapping[Any, Part], place: int, value: Seq, item: int, at: int, dims: Numbers
) -> Iterator[Codes]:
    """Items from a place of the template on, and from an item of the value."""
    if place == len(node.template):
        if item == len(value):
            yield {}
        return
    template: Sequence[Any] = node.template  # type: ignore[assignment]
    part = parts.get(place)
    if part is not None and part.optional:
        for codes in _matches(part.node, "absent", at + part.offset, dims):
            for more in _list(node, parts, place + 1, value, item, at, dims):
                yield {**codes, **more}
    if item == len(value):
        return
    if part is not None:
        found = _matches(part.node, value[item], at + part.offset, dims)
    else:
        found = _matches(Constant(template[place]), value[item], at, dims)
    for codes in found:
        for more in _list(node, parts, place + 1, value, item + 1, at, dims):
            yield {**codes, **more}
