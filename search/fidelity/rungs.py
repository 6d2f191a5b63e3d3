"""What to train next, and how far: asynchronous successive halving over several objectives.

Every candidate trains to the first rung. Of those that reached a rung, the best part goes on to the next as soon as it
is known to be the best of those that are there; nobody waits for the others. Li et al. 2020, "A system for massively
parallel hyperparameter tuning", arXiv 1810.05934; for several objectives Schmucker et al. 2021, "Multi-objective
asynchronous successive halving", arXiv 2106.12639. The state is the record alone: any worker decides the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from archspec.errors import Problem, SpecError
from search.fidelity.ranking import order
from search.kinds import Fields
from search.recipe import Recipe


class Stage(Fields):
    """How a candidate is trained for a rung: ``until`` a step of a run that goes on later, or all of a shorter run."""

    recipe: Recipe
    until: int | None = None


class Halving(Fields):
    """Rising fidelities of a study.

    Of steps, rungs are pauses of one training run under one schedule, each paid only for what is new. Of data, each
    rung is a training of its own with so many steps, on the share of the data that they are of all steps; of length,
    on sequences of that length.

    Example:
        fidelities: {of: steps, least: 60, reduction: 3, finalists: 6}
    """

    of: Literal["steps", "data", "length"] = Field("steps", description="what a rung has more of")
    least: int = Field(ge=1, description="steps, or tokens of a sequence, that the first rung has at least")
    reduction: int = Field(3, ge=2, description="one in so many goes on; the next rung has so many times as much")
    finalists: int = Field(1, ge=0, description="candidates trained to the end at least, when no new ones start")

    def levels(self, recipe: Recipe) -> tuple[int, ...]:
        """Steps or tokens of each rung, from the first to the whole.

        Errors:
            SpecError: the recipe does not say how much the whole is, or it is no more than the least.
        """
        most = recipe.length if self.of == "length" else recipe.steps
        if most is None:
            cause = "fidelities of length need the length of the whole"
            raise SpecError(Problem(cause, "say length in train", "fidelities.of"))
        if self.least >= most:
            unit = "tokens" if self.of == "length" else "steps"
            cause = f"the first rung has {self.least} {unit}, the whole training {most}"
            raise SpecError(Problem(cause, f"try least: {max(1, most // self.reduction)}", "fidelities.least"))
        found = [most]
        while -(-found[0] // self.reduction) >= self.least and found[0] > 1:
            found.insert(0, -(-found[0] // self.reduction))
        return tuple(found)

    def stage(self, recipe: Recipe, rung: int) -> Stage:
        """How a candidate is trained for a rung, counted from 0."""
        level = self.levels(recipe)[rung]
        if self.of == "steps":
            return Stage(recipe=recipe, until=level if level < recipe.steps else None)
        if self.of == "data":
            return Stage(
                recipe=recipe.model_copy(update={"steps": level, "share": recipe.share * level / recipe.steps})
            )
        return Stage(recipe=recipe.model_copy(update={"length": level}))


@dataclass(frozen=True)
class Candidate:
    """What the record says of a candidate.

    Attributes:
        key: names it.
        told: the objectives, all minimised, at each rung that it finished.
        running: the rung for which it trains now.
        failed: it has no more values to give.
    """

    key: str
    told: Mapping[int, Sequence[float]] = field(default_factory=dict)
    running: int | None = None
    failed: bool = False

    @property
    def reached(self) -> int:
        """The highest rung that it finished or trains for; -1 for none."""
        return max(*self.told, -1 if self.running is None else self.running, -1)


@dataclass(frozen=True)
class Promote:
    """Train this candidate on, to this rung."""

    key: str
    rung: int


Next = Promote | Literal["start", "wait", "done"]


def decide(
    candidates: Sequence[Candidate],
    *,
    rungs: int,
    reduction: int,
    starts: int,
    finalists: int = 0,
    noise: Sequence[float] | None = None,
) -> Next:
    """What a free worker does: goes on with a candidate, starts a new one, waits for others, or is done.

    Args:
        candidates: all of the study, in the order in which they were started.
        rungs: how many there are.
        reduction: of so many that finished a rung, one goes on.
        starts: how many candidates are started at most.
        finalists: how many are trained to the last rung at least, once no new ones start.
        noise: the standard deviation of each objective between seeds.
    """
    top = rungs - 1
    for rung in range(top - 1, -1, -1):
        there = [candidate for candidate in candidates if rung in candidate.told]
        best = _best(there, rung, noise, len(there) // reduction)
        ready = next((c for c in best if _may_go_on(c, rung)), None)
        if ready is not None:
            return Promote(ready.key, rung + 1)
    if len(candidates) < starts:
        return "start"
    final = sum(candidate.reached == top and not candidate.failed for candidate in candidates)
    below = [c for c in candidates if c.told and not c.failed and c.running is None and c.reached < top]
    coming = sum(c.running is not None and c.reached < top and not c.failed for c in candidates)
    if final < finalists and below and not coming:
        highest = max(candidate.reached for candidate in below)
        among = [candidate for candidate in below if candidate.reached == highest]
        return Promote(_best(among, highest, noise, 1)[0].key, highest + 1)
    return "wait" if any(c.running is not None and not c.failed for c in candidates) else "done"


def _best(there: Sequence[Candidate], rung: int, noise: Sequence[float] | None, count: int) -> list[Candidate]:
    return [there[place] for place in order([candidate.told[rung] for candidate in there], noise, first=count)]


def _may_go_on(candidate: Candidate, rung: int) -> bool:
    return candidate.reached == rung and candidate.running is None and not candidate.failed
