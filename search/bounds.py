"""The constraints of a study file: figures that are known before training, each with at_most or at_least."""

from __future__ import annotations

from typing import Any

from archspec.errors import Mark, Problem, SpecError
from archspec.source import Map, Seq
from search.kinds import shown
from search.objectives import Bound, Objective


def read_bounds(items: Seq, problems: list[Problem]) -> tuple[Bound, ...]:
    """The bounds of a list; what is wrong with them is added to the problems."""
    found: list[Bound] = []
    for number, item in enumerate(items):
        path, mark = f"constraints[{number}]", items.where(number)
        try:
            bound = _bound(item, path, mark)
            for other in found:
                _agree(other, bound, path, mark)
            found.append(bound)
        except SpecError as error:
            problems.extend(error.problems)
    return tuple(found)


def _agree(other: Bound, bound: Bound, path: str, mark: Mark | None) -> None:
    if other.objective != bound.objective:
        return
    low = max((b.at_least for b in (other, bound) if b.at_least is not None), default=float("-inf"))
    high = min((b.at_most for b in (other, bound) if b.at_most is not None), default=float("inf"))
    if low > high:
        cause = f"{bound} contradicts {other}"
        raise SpecError(Problem(cause, "no candidate keeps both; leave one out", path, mark))


def _bound(item: Any, path: str, mark: Mark | None) -> Bound:
    example = "as {kind: parameters, at_most: 3e6}"
    if not isinstance(item, Map):
        raise SpecError(Problem(f"expected a constraint, found {shown(item)}", example, path, mark))
    limits = item.move("at_most", "at_least")
    if not limits:
        raise SpecError(Problem("a constraint needs at_most or at_least", example, path, item.mark))
    for key, value in limits.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            cause = f"{key} is {shown(value)}; it should be a number"
            raise SpecError(Problem(cause, None, f"{path}.{key}", limits.where(key)))
    objective = Objective.read(item.move(*(key for key in item if key not in limits)), path, mark)
    if objective.worst is not None:
        cause = "worst is of an objective; a constraint has at_most or at_least"
        raise SpecError(Problem(cause, f"try at_most: {objective.worst:g}", f"{path}.worst", item.where("worst")))
    if objective.needs_training:
        cause = f"{objective.name} is known only after training, a constraint must be known before"
        others = sorted(name for name, kind in Objective.kinds().items() if kind.after is Objective.after)
        hint = (
            "use the predicted latency"
            if objective.kind_name == "latency"
            else f"there are {', '.join(others)}, latency"
        )
        raise SpecError(Problem(cause, hint, path, item.mark))
    return Bound(objective=objective, at_most=limits.get("at_most"), at_least=limits.get("at_least"))
