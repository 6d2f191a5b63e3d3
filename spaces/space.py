"""A space: a spec with choices in it, and the candidates that the choices make.

A space is loaded from the same YAML as a spec, with ``archspace: 1`` at its head. Constraints that can be told from a
mapping and the dims are kept by every candidate that is drawn; what only a typed graph can tell (a kind that refuses
its fields, a width that an edge brings) is told by elaborating the candidate.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from archspec.errors import Mark, Problem, SpecError, did_you_mean
from archspec.resolve import resolve
from archspec.source import Map, read
from archspec.spec import Spec, from_tree, header
from spaces.candidate import Candidate
from spaces.cardinality import Cardinality, Counter
from spaces.choices import Code, Slot, slots_of
from spaces.deferred import broken, deferred_in
from spaces.feasibility import Refusals, never_legal
from spaces.freezing import frozen
from spaces.identity import identity
from spaces.inlining import inline_blocks
from spaces.legality import Legality
from spaces.members import Memo, fresh
from spaces.parsing import Parser
from spaces.picking import Pick, Trial, check_reached, given, suggested, walk
from spaces.ranges import Range
from spaces.sampling import Sampler, Unlucky

if TYPE_CHECKING:
    from spaces.vectors import VectorSampler

LIBRARY = Path(__file__).parent / "library"
TRIES = 1000


class Space:
    """A space.

    Args:
        tree: its marked tree, with ``extends`` and ``set`` resolved.
        elaborate: from a spec's tree to a spec, or SpecError.
        frozen: codes of choices that are settled, as `freeze` gives them.

    Errors:
        SpecError: everything that is wrong with its choices; an option that its constraints never allow; no member.
    """

    def __init__(
        self, tree: Map, elaborate: Callable[[Map], Spec] = from_tree, frozen: Mapping[str, Code] | None = None
    ) -> None:
        header(tree, "archspace", "space")
        self.tree, self.elaborate, self.frozen = tree, elaborate, dict(frozen or {})
        self.name = str(tree.get("name", "space"))
        tree, blocks = inline_blocks(tree)
        parser = Parser(blocks, self.frozen)
        self.root, self.dims, self.mark = parser.root(tree), parser.dims, tree.mark
        self.slots: tuple[Slot, ...] = slots_of(self.dims.product, "dims")
        self.slots += slots_of(self.root, start=len(self.slots))
        self.legality = Legality(self.dims, self.root)
        self.sampler = Sampler(self.legality)
        self.deferred = deferred_in(self.root)
        self.refusals = Refusals()
        self._memo: Memo = {}
        self._dims: dict[tuple[Code, ...], Map] = {}
        if self.legality.members_of_dims == []:
            raise self.no_member()
        # A settled choice may leave options without use; what the file itself rules out was told before.
        if not frozen and (problems := never_legal(self.legality, self.slots)):
            raise SpecError(*problems)

    def draw(self, random: Random) -> Candidate:
        """A random candidate that keeps the constraints between its choices; it is not elaborated.

        Errors:
            SpecError: none was met.
        """
        try:
            return Candidate(self, tuple(self.sampler.draw(random)))
        except Unlucky:
            raise self.no_member() from None

    def sample(self, random: Random) -> Candidate:
        """A random candidate that elaborates. What was refused on the way is counted in ``refusals``.

        Errors:
            SpecError: none was met; how many were tried, and what refused how many.
        """
        tally = Refusals()
        for _ in range(TRIES):
            candidate = self.draw(random)
            tally.tried += 1
            self.refusals.tried += 1
            problem = self.refusal(candidate)
            if problem is None:
                return candidate
            tally.add(problem)
            self.refusals.add(problem)
        raise tally.no_member(self.mark)

    @cached_property
    def vectors(self) -> VectorSampler:
        """Draws candidates as vectors. NumPy is imported when it is first asked for."""
        from spaces.vectors import VectorSampler

        return VectorSampler(self.legality, self.sampler)

    def refusal(self, candidate: Candidate) -> Problem | None:
        """Why the language refuses a candidate; None if it does not."""
        try:
            spec = candidate.spec
        except SpecError as error:
            return error.problems[0]
        return broken(spec, self.deferred, self.sampler.numbers(candidate.codes[: self.sampler.start]))

    def suggest(self, trial: Trial) -> Candidate:
        """The candidate that a trial suggests; choices that are not reached are not asked for.

        Errors:
            SpecError: a constraint between its choices is broken.
        """
        return self.walk(suggested(self.slots, trial))

    def candidate(self, values: Mapping[str, Any]) -> Candidate:
        """The candidate of values by path, as `Candidate.values` gives them.

        Errors:
            SpecError: a value is missing, unknown, not among the options, or breaks a constraint.
        """
        result = self.walk(given(self.slots, values))
        check_reached(self.slots, result.codes, values)
        return result

    def default(self) -> Candidate:
        """The candidate of all defaults: as written, else the first option and the low end.

        Errors:
            SpecError: the defaults break a constraint.
        """
        return self.walk(lambda number: self.slots[number].node.default)

    def freeze(self, values: Mapping[str, Any]) -> Space:
        """The space with some choices settled, ``{"dims.width": 256, "graph[1].body[*].mixer": "attention"}``.

        Paths are those of the slots, with ``[*]`` for all rounds of a repeat in which every round chooses for itself;
        values those of `Candidate.values`. The space that is left has fewer slots, named as if the file had said so.

        Errors:
            SpecError: a path leads to no choice or to one round only, a value is not among the options, a choice is
                not reached when others are settled so, or no member is left.
        """
        codes = frozen(self.slots, values)
        return Space(self.tree, self.elaborate, self.frozen | codes)

    def walk(self, pick: Pick) -> Candidate:
        """The candidate whose reached choices are picked one by one.

        Errors:
            SpecError: a constraint between its choices is broken.
        """
        return Candidate(self, walk(self.sampler, pick))

    def tree_of(self, codes: tuple[Code, ...]) -> Map:
        """The spec that codes stand for."""
        own = codes[: self.sampler.start]
        tree: Map = fresh(self.root, codes, self.sampler.start, self.sampler.numbers(own), self._memo)
        if self.dims.names:
            if own not in self._dims:
                self._dims[own] = self.dims.tree(own)
            tree["dims"] = self._dims[own]
        return tree

    def cardinality(self) -> Cardinality:
        """The number of distinct members that keep the constraints between their choices."""
        return Counter(self.legality).members()

    def members(self) -> Iterator[Candidate]:
        """All distinct members of a small space, without elaborating them.

        Errors:
            SpecError: a range is a continuum, or tied parts are too many to list.
        """
        seen = set()
        for codes in self._assignments():
            candidate = Candidate(self, codes)
            key = identity(candidate.tree)
            if key not in seen:
                seen.add(key)
                yield candidate

    def _assignments(self) -> Iterator[tuple[Code, ...]]:
        if self.legality.members_of_dims is None or any(
            isinstance(slot.node, Range) and slot.node.count is None for slot in self.slots
        ):
            raise SpecError(Problem("the members of this space cannot be listed", None, mark=self.mark))
        for dims_codes, _ in self.dims.combinations(self.dims.names):
            dims = self.sampler.numbers(dims_codes)
            if self.legality.possible(self.root, dims):
                for codes in self.legality.assignments(self.root, dims):
                    yield (*dims_codes, *codes)

    def no_member(self) -> SpecError:
        """The error of a space in which no member was met: how many were tried, and what refused how many."""
        tally, random = Refusals(), Random(0)

        def pick(number: int) -> Code:
            node = self.slots[number].node
            return node.draw(random) if isinstance(node, Range) else random.randrange(len(node.options))

        for _ in range(TRIES):
            tally.tried += 1
            try:
                self.walk(pick)
            except SpecError as error:
                tally.add(error.problems[0])
        return tally.no_member(self.mark)


def load(path: str | os.PathLike[str], *, set: Mapping[str, Any] | None = None) -> Space:  # noqa: A002
    """Loads a space from a file, or by its name from the library.

    Args:
        set: overrides by path, ``{"dims.width": 64}``.

    Errors:
        SpecError: as `Space`, and everything that is wrong with the file.
    """
    tree = read(library_file(path))
    header(tree, "archspace", "space")
    return Space(resolve(tree, set))


def library() -> list[str]:
    """Names of the spaces that come with the program."""
    return sorted(file.stem for file in LIBRARY.glob("*.yaml"))


def library_file(path: str | os.PathLike[str]) -> Path:
    """The file of a space given by its path or by its name in the library."""
    file = Path(path)
    if file.exists() or file.suffix or len(file.parts) > 1:
        return file
    if str(path) in library():
        return LIBRARY / f"{path}.yaml"
    hint = did_you_mean(str(path), library())
    raise SpecError(
        Problem(f"no file and no space of the library is called {str(path)!r}", hint, mark=Mark(str(path), 1, 1))
    )
