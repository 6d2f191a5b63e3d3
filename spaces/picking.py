"""Codes picked one choice at a time: from values by path, from a trial that suggests them, from anything else.

Only choices that are reached are picked, dims first, and every constraint is checked as soon as its parts are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from archspec.errors import Problem, SpecError, did_you_mean
from spaces.choices import Alternative, Code, Node, Product, Rounds, Slot
from spaces.members import Numbers, rounds
from spaces.ranges import Range
from spaces.sampling import Sampler

Pick = Callable[[int], Code]  # slot number to code


class Trial(Protocol):
    """What suggests values, as Optuna's trials do."""

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...


def walk(sampler: Sampler, pick: Pick) -> tuple[Code, ...]:
    """The codes that a function picks for the choices that are reached.

    Errors:
        SpecError: a constraint is broken.
    """
    codes: list[Code] = [None] * sampler.size

    def visit(node: Node, at: int, dims: Numbers) -> None:
        if isinstance(node, Range):
            codes[at] = pick(at)
        elif isinstance(node, Alternative):
            codes[at] = chosen = pick(at)
            assert isinstance(chosen, int)
            visit(node.options[chosen], at + node.offsets[chosen], dims)
        elif isinstance(node, Product):
            for part in (*node.joint, *node.free):
                visit(part.node, at + part.offset, dims)
            if node.constraints and (problem := sampler.legality.broken(node, codes, at, dims)):
                raise SpecError(problem)
            if node.rounds is not None:
                inner = node.rounds.node
                assert isinstance(inner, Rounds)
                for turn in range(rounds(node, codes, at, dims)):
                    visit(inner.body, at + node.rounds.offset + turn * inner.body.size, dims)

    for part in sampler.dims.order:
        visit(part.node, part.offset, {})
    visit(sampler.legality.root, sampler.start, sampler.numbers(tuple(codes[: sampler.start])))
    return tuple(codes)


def suggested(slots: Sequence[Slot], trial: Trial) -> Pick:
    """Picks what a trial suggests, under the paths of the choices."""

    def pick(number: int) -> Code:
        node, path = slots[number].node, slots[number].path
        if isinstance(node, Alternative):
            return node.position(trial.suggest_categorical(path, node.labels))
        if not node.whole:
            return node.nearest(trial.suggest_float(path, node.low, node.high, step=node.step, log=node.log))
        low, high, step = int(node.low), int(node.high), int(node.step or 1)
        return node.nearest(trial.suggest_int(path, low, high, step=step, log=node.log))

    return pick


def given(slots: Sequence[Slot], values: Mapping[str, Any]) -> Pick:
    """Picks values by path.

    Errors:
        SpecError: when picking: a value is missing, or not one that can be chosen.
    """

    def pick(number: int) -> Code:
        slot = slots[number]
        if slot.path not in values:
            raise SpecError(Problem("no value is given for this choice", domain(slot.node), slot.path, slot.node.mark))
        return code_of(slot, values[slot.path])

    return pick


def check_reached(slots: Sequence[Slot], codes: Sequence[Code], values: Mapping[str, Any]) -> None:
    """Refuses values of choices that do not exist or were not reached.

    Errors:
        SpecError: the first of them.
    """
    reached = {slot.path: code is not None for slot, code in zip(slots, codes, strict=True)}
    for path in values:
        if path not in reached:
            raise SpecError(Problem("no choice has this path", did_you_mean(path, reached), path))
        if not reached[path]:
            raise SpecError(Problem("this choice is not reached by the others", None, path))


def code_of(slot: Slot, value: object) -> Code:
    """The code of a value: an option's label, or a number of the range.

    Errors:
        SpecError: it cannot be chosen.
    """
    node = slot.node
    code: Code
    if isinstance(node, Alternative):
        code = node.position(value)
    else:
        code = node.nearest(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    if code is None:
        raise SpecError(Problem(f"{value!r} cannot be chosen here", domain(node), slot.path, node.mark))
    return code


def domain(node: Range | Alternative) -> str:
    """What can be chosen, in words."""
    if isinstance(node, Alternative):
        return f"there are {', '.join(str(label) for label in node.labels)}"
    return f"a number from {node.low} to {node.high}" + (f" in steps of {node.step}" if node.step else "")
