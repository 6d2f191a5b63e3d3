"""From codes to the value that they stand for, and all assignments of a node when no constraint counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from archspec.expressions import Number
from archspec.source import Map, Seq
from spaces.choices import Alternative, Code, Constant, Node, Product, Rounds
from spaces.constraints import number
from spaces.identity import identity
from spaces.ranges import Range

Numbers = Mapping[str, Number]
Memo = dict[tuple[object, ...], Any]

MEMOISED = 65_536  # assignments of a node up to which its values are kept
KEPT = 200_000  # values that are kept at once


def value(node: Node, codes: Sequence[Code], at: int, dims: Numbers, memo: Memo | None = None) -> Any:
    """What stands in the member at a node whose slots begin at ``at``.

    Parts that do not vary are shared with the space; with a memo, equal parts are one object in all members.
    """
    if isinstance(node, Constant):
        return node.value
    if isinstance(node, Range):
        drawn = codes[at]
        assert drawn is not None
        return node.value(drawn, dims)
    assert not isinstance(node, Rounds)
    if memo is None or node.raw is None or node.raw > MEMOISED:
        return fresh(node, codes, at, dims, memo)
    key = (id(node), *codes[at : at + node.size], *(dims[name] for name in node.factors))
    found = memo.get(key)
    if found is None:
        if len(memo) >= KEPT:
            memo.clear()
        found = memo[key] = fresh(node, codes, at, dims, memo)
    return found


def fresh(node: Alternative | Product, codes: Sequence[Code], at: int, dims: Numbers, memo: Memo | None) -> Any:
    """As `value`, an object that no other member has; what it contains may be shared."""
    if isinstance(node, Alternative):
        chosen = codes[at]
        assert isinstance(chosen, int)
        return value(node.options[chosen], codes, at + node.offsets[chosen], dims, memo)
    assert isinstance(node, Product)
    built: dict[str | int, Any] = {}
    for part in node.parts:
        if isinstance(part.node, Rounds):
            items = bodies(part.node, rounds(node, codes, at, dims), codes, at + part.offset, dims, memo)
            built |= {part.key: items} if part.node.listed else overridden(items)
        elif part.shown:
            built[part.key] = value(part.node, codes, at + part.offset, dims, memo)
    return assemble(node, built)


def assemble(node: Product, built: Mapping[str | int, Any]) -> Map | Seq:
    """A product's mapping or list with its varying parts filled in."""
    template = node.template
    if isinstance(template, Map):
        # The marks are shared and not copied: members are read, never changed.
        result = Map.__new__(Map)
        result.update(template)
        result.update(built)  # type: ignore[arg-type]
        result.mark, result.path = template.mark, template.path
        result.key_marks, result.value_marks = template.key_marks, template.value_marks
        result.key_paths = template.key_paths
        return result
    items = Seq.__new__(Seq)
    items.mark, items.path = template.mark, template.path
    dropped = [part.key for part in node.parts if part.optional and built[part.key] == "absent"]
    if not dropped:
        items.extend(template)
        items.value_marks = template.value_marks
        for key, item in built.items():
            items[key] = item  # type: ignore[index]
        return items
    items.value_marks = []
    for key, item in enumerate(template):
        if key not in dropped:
            items.put(built.get(key, item), template.value_marks[key])
    return items


def bodies(node: Rounds, times: int, codes: Sequence[Code], at: int, dims: Numbers, memo: Memo | None) -> Seq:
    """The list of a repeat's bodies; absent ones are left out."""
    size = node.body.size
    items = [value(node.body, codes, at + turn * size, dims, memo) for turn in range(times)]
    if node.optional:
        items = [item for item in items if item != "absent"]
    return Seq(items, path=node.path)


def overridden(items: Seq) -> dict[str | int, Any]:
    """The fields of a loop with these bodies: the first, and by number those that differ from it."""
    first = items[0] if items else "absent"
    same = identity(first)
    others = Map({str(turn): item for turn, item in enumerate(items) if identity(item) != same}, items.mark, items.path)
    return {"times": len(items), "body": first, "overrides": others}


def rounds(node: Product, codes: Sequence[Code], at: int, dims: Numbers) -> int:
    """How many rounds the product's `Rounds` have."""
    part = node.rounds
    assert part is not None
    assert isinstance(part.node, Rounds)
    times = part.node.times
    if isinstance(times, Constant):
        raw = times.value
    else:
        counter = next(one for one in node.parts if one.node is times)
        raw = value(times, codes, at + counter.offset, dims)
    found = raw if isinstance(raw, int) else number("times", {"times": raw}, dims)
    return max(0, int(found))


def fields(node: Product, codes: Sequence[Code], at: int, dims: Numbers) -> dict[str, Any]:
    """What a product's constraints read beside dims."""
    found = dict(node.fixed)
    for part in node.joint:
        found[str(part.key)] = value(part.node, codes, at + part.offset, dims)
    return found


def assignments(node: Node) -> Iterator[tuple[Code, ...]]:
    """All codes of a node without constraints or rounds, as those of dims."""
    if isinstance(node, Constant):
        yield ()
    elif isinstance(node, Range):
        for drawn in node.numbers():
            yield (drawn,)
    else:
        assert isinstance(node, Alternative)
        for chosen, option in enumerate(node.options):
            for inner in assignments(option):
                yield spread(node, chosen, inner)


def spread(node: Alternative, chosen: int, inner: tuple[Code, ...]) -> tuple[Code, ...]:
    """The codes of an alternative from those of the option that it takes."""
    before = node.offsets[chosen] - 1
    after = node.size - 1 - before - len(inner)
    return (chosen, *(None,) * before, *inner, *(None,) * after)
