"""What the language refuses in a space, found by elaborating samples."""

from __future__ import annotations

from collections import defaultdict
from random import Random

from archspec.errors import Problem, SpecError
from spaces.candidate import Candidate
from spaces.choices import Alternative, Scalar
from spaces.feasibility import Refusals
from spaces.space import Space

ENOUGH = 30  # refused candidates with an option, and none accepted, that make it never legal
DRAWS = 2000  # candidates that are drawn to meet those

Option = tuple[str, Scalar]  # path without the numbers of rounds, label


class Survey:
    """Elaborates random candidates of a space, and more of those with an option that none of the accepted has.

    Attributes:
        refusals: how many random candidates were tried, and what was refused for which reason.
        never: one problem for each option with which every candidate was refused.

    Errors:
        SpecError: no candidate elaborates; how many were tried, and what refused how many.
    """

    def __init__(self, space: Space, random: Random, samples: int = 200) -> None:
        self.space, self.random = space, random
        self.refusals = Refusals()
        self._accepted: set[Option] = set()
        self._against: dict[Option, Refusals] = defaultdict(Refusals)
        for _ in range(samples):
            self.refusals.tried += 1
            problem = self._judge(space.draw(random))
            if problem is not None:
                self.refusals.add(problem)
        if self.refusals.refused == samples:
            raise self.refusals.no_member(space.mark)
        self.never = [problem for option, place in _places(space).items() if (problem := self._never(option, place))]

    @property
    def accepted(self) -> float:
        """The portion of random candidates that elaborate, 0 to 1."""
        return 1 - self.refusals.refused / self.refusals.tried

    def _judge(self, candidate: Candidate) -> Problem | None:
        problem = self.space.refusal(candidate)
        for option in _options(candidate):
            if problem is None:
                self._accepted.add(option)
            else:
                self._against[option].add(problem)
        return problem

    def _never(self, option: Option, place: Problem) -> Problem | None:
        """The problem of an option with which enough candidates were refused and none accepted."""
        against = self._against[option]
        for _ in range(DRAWS):
            if option in self._accepted:
                return None
            if against.refused >= ENOUGH:
                return place._replace(hint=against.lines()[0])
            candidate = self.space.draw(self.random)
            if option in _options(candidate):
                self._judge(candidate)
        return None


def check(space: Space, random: Random, samples: int = 200) -> Survey:
    """A survey in which an option that is never legal is an error.

    Errors:
        SpecError: no candidate elaborates, or none with some option.
    """
    result = Survey(space, random, samples)
    if result.never:
        raise SpecError(*result.never)
    return result


def _options(candidate: Candidate) -> set[Option]:
    """The options that a candidate takes."""
    return {
        (slot.fold, slot.node.labels[int(code)])
        for slot, code in zip(candidate.space.slots, candidate.codes, strict=True)
        if code is not None and isinstance(slot.node, Alternative)
    }


def _places(space: Space) -> dict[Option, Problem]:
    """Every option, with its place in the file."""
    places = {}
    for slot in space.slots:
        if isinstance(slot.node, Alternative):
            for label, mark in zip(slot.node.labels, slot.node.marks, strict=True):
                cause = f"the option {label} is never legal: every candidate with it was refused"
                places[slot.fold, label] = Problem(cause, None, slot.fold, mark)
    return places
