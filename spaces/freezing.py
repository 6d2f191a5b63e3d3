"""Choices that are settled by their path and a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from archspec.errors import Mark, Problem, SpecError, did_you_mean
from archspec.source import Map
from spaces.choices import Alternative, Code, Constant, Node, Slot
from spaces.picking import code_of
from spaces.ranges import Range


def frozen(slots: Sequence[Slot], values: Mapping[str, Any]) -> dict[str, Code]:
    """The codes of values by path, under the paths at which the choices stand in the file.

    Errors:
        SpecError: everything that is wrong with the paths and the values.
    """
    folds = {slot.fold: slot for slot in reversed(slots)}
    every = {slot.every: slot for slot in slots}
    paths = {slot.path: slot for slot in slots}
    codes: dict[str, Code] = {}
    where: dict[str, str] = {}
    problems = []
    for path, value in values.items():
        mark = values.where(path) if isinstance(values, Map) else None
        slot = every.get(path) or folds.get(path)
        if slot is None:
            problems.append(_unknown(path, paths, folds, mark))
            continue
        try:
            codes[slot.fold], where[slot.fold] = code_of(slot, value), path
        except SpecError as error:
            problems += [problem._replace(path=path, mark=mark or problem.mark) for problem in error.problems]
    for fold, path in where.items():
        for number, option in folds[fold].given:
            if codes.get(slots[number].fold, option) != option:
                problems.append(Problem("this choice is not reached by the others", None, path))
    if problems:
        raise SpecError(*problems)
    return {str(folds[fold].node.path): code for fold, code in codes.items()}


def settled(node: Node, code: Code) -> Node:
    """What is left of a choice when its code is settled."""
    assert code is not None
    if isinstance(node, Alternative):
        return node.options[int(code)]
    assert isinstance(node, Range)
    return Constant(code if node.of is None else f"{code} * {node.of}")


def is_out(node: Node, raw: Any) -> bool:
    """Whether a list item is a choice that was settled to be absent."""
    return isinstance(node, Constant) and node.value == "absent" and isinstance(raw, Map)


def _unknown(path: str, paths: Mapping[str, Slot], folds: Mapping[str, Slot], mark: Mark | None) -> Problem:
    if path in paths:
        cause = "one round of a repeat cannot be settled alone"
        return Problem(cause, f"{paths[path].every} settles all rounds", path, mark)
    return Problem("no choice has this path", did_you_mean(path, [slot.every for slot in folds.values()]), path, mark)
