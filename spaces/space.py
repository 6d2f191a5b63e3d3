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
from typing import TYPE_CHECKING, Any, Protocol

from archspec.errors import Mark, Problem, SpecError, did_you_mean
from archspec.resolve import resolve
from archspec.source import Map, Seq, read
from archspec.spec import Spec, from_tree, header
from spaces.cardinality import Cardinality, Counter
from spaces.choices import Alternative, Code, Node, Product, Rounds, Slot, slots_of
from spaces.deferred import broken, deferred_in
from spaces.feasibility import Refusals, never_legal
from spaces.identity import identity
from spaces.inlining import inline_blocks
from spaces.legality import Legality
from spaces.members import Memo, rounds, value
from spaces.parsing import Parser
from spaces.ranges import Range
from spaces.sampling import Sampler, Unlucky

if TYPE_CHECKING:
    from spaces.vectors import VectorSampler

LIBRARY = Path(__file__).parent / "library"
TRIES = 1000

Pick = Callable[[int], Code]  # slot number to code


class Trial(Protocol):
    """What suggests values, as Optuna's trials do."""

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> float: ...


class Candidate:
    """One member of a space.

    Attributes:
        codes: option numbers and drawn numbers by slot, None for choices that are not reached.
    """

    def __init__(self, space: Space, codes: tuple[Code, ...]) -> None:
        self.space, self.codes = space, codes

    @cached_property
    def values(self) -> dict[str, Any]:
        """What was chosen, by path, for the choices that are reached; an option is its label."""
        return {
            slot.path: slot.node.labels[int(code)] if isinstance(slot.node, Alternative) else code
            for slot, code in zip(self.space.slots, self.codes, strict=True)
            if code is not None
        }

    @cached_property
    def tree(self) -> Map:
        """The spec, without choices. It shares parts with other candidates and must not be changed."""
        return self.space.tree_of(self.codes)

    @cached_property
    def spec(self) -> Spec:
        """The elaborated spec.

        Errors:
            SpecError: the language refuses it.
        """
        return self.space.elaborate(self.tree)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Candidate) and self.space is other.space and self.codes == other.codes

    def __hash__(self) -> int:
        return hash(self.codes)

    def __repr__(self) -> str:
        return f"Candidate({self.values})"


class Space:
    """A space.

    Args:
        tree: its marked tree, with ``extends`` and ``set`` resolved.
        elaborate: from a spec's tree to a spec, or SpecError.

    Errors:
        SpecError: everything that is wrong with its choices; an option that its constraints never allow; no member.
    """

    def __init__(self, tree: Map, elaborate: Callable[[Map], Spec] = from_tree) -> None:
        header(tree, "archspace", "space")
        self.elaborate = elaborate
        self.name = str(tree.get("name", "space"))
        tree, blocks = inline_blocks(tree)
        parser = Parser(blocks)
        self.root, self.dims, self.mark = parser.root(tree), parser.dims, tree.mark
        self.slots: tuple[Slot, ...] = slots_of(self.dims.product, "dims") + slots_of(self.root)
        self.legality = Legality(self.dims, self.root)
        self.sampler = Sampler(self.legality)
        self.deferred = deferred_in(self.root)
        self.refusals = Refusals()
        self._memo: Memo = {}
        if self.legality.members_of_dims == []:
            raise self._tally().no_member(self.mark)
        if problems := never_legal(self.legality, self.slots):
            raise SpecError(*problems)

    def draw(self, random: Random) -> Candidate:
        """A random candidate that keeps the constraints between its choices; it is not elaborated.

        Errors:
            SpecError: none was met.
        """
        try:
            return Candidate(self, tuple(self.sampler.draw(random)))
        except Unlucky:
            raise self._tally().no_member(self.mark) from None

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

        def pick(number: int) -> Code:
            slot = self.slots[number]
            node = slot.node
            if isinstance(node, Alternative):
                return node.position(trial.suggest_categorical(slot.path, node.labels))
            if node.whole:
                found: float = trial.suggest_int(slot.path, int(node.low), int(node.high), step=int(node.step or 1), log=node.log)
            else:
                found = trial.suggest_float(slot.path, node.low, node.high, step=node.step, log=node.log)
            return node.nearest(found)

        return self.walk(pick)

    def candidate(self, values: Mapping[str, Any]) -> Candidate:
        """The candidate of values by path, as `Candidate.values` gives them.

        Errors:
            SpecError: a value is missing, unknown, not among the options, or breaks a constraint.
        """
        asked: set[str] = set()

        def pick(number: int) -> Code:
            slot = self.slots[number]
            asked.add(slot.path)
            if slot.path not in values:
                raise SpecError(Problem("no value is given for this choice", _domain(slot.node), slot.path, slot.node.mark))
            return self.code(slot, values[slot.path])

        result = self.walk(pick)
        for path in values:
            if path not in asked:
                known = [slot.path for slot in self.slots]
                cause = "this choice is not reached by the others" if path in known else "no choice has this path"
                raise SpecError(Problem(cause, did_you_mean(path, known) if path not in known else None, path))
        return result

    def default(self) -> Candidate:
        """The candidate of all defaults: as written, else the first option and the low end.

        Errors:
            SpecError: the defaults break a constraint.
        """
        return self.walk(lambda number: self.slots[number].node.default)

    def code(self, slot: Slot, given: Any) -> Code:
        node = slot.node
        if isinstance(node, Alternative):
            code: Code = node.position(given)
        else:
            numeric = isinstance(given, (int, float)) and not isinstance(given, bool)
            code = node.nearest(given) if numeric else None
        if code is None:
            raise SpecError(Problem(f"{given!r} cannot be chosen here", _domain(node), slot.path, node.mark))
        return code

    def walk(self, pick: Pick) -> Candidate:
        """The candidate whose reached choices are picked one by one, dims first.

        Errors:
            SpecError: a constraint is broken.
        """
        codes: list[Code] = [None] * len(self.slots)

        def visit(node: Node, at: int, dims: Mapping[str, Any]) -> None:
            if isinstance(node, Range):
                codes[at] = pick(at)
            elif isinstance(node, Alternative):
                codes[at] = chosen = pick(at)
                assert isinstance(chosen, int)
                visit(node.options[chosen], at + node.offsets[chosen], dims)
            elif isinstance(node, Product):
                for part in (*node.joint, *node.free):
                    visit(part.node, at + part.offset, dims)
                problem = self.legality.broken(node, codes[at : at + node.size], 0, dims) if node.constraints else None
                if problem is not None:
                    raise SpecError(problem)
                if node.rounds is not None:
                    inner = node.rounds.node
                    assert isinstance(inner, Rounds)
                    for turn in range(rounds(node, codes, at, dims)):
                        visit(inner.body, at + node.rounds.offset + turn * inner.body.size, dims)

        for part in self.dims.order:
            visit(part.node, part.offset, {})
        dims = self.sampler.numbers(tuple(codes[: self.sampler.start]))
        visit(self.root, self.sampler.start, dims)
        return Candidate(self, tuple(codes))

    def tree_of(self, codes: tuple[Code, ...]) -> Map:
        """The spec that codes stand for."""
        own = codes[: self.sampler.start]
        tree: Map = value(self.root, codes, self.sampler.start, self.sampler.numbers(own), self._memo)
        if self.dims.order:
            tree["dims"] = self.dims.tree(own)
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

    def _tally(self) -> Refusals:
        """What refuses candidates of a space in which none was met."""
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
        return tally


def load(path: str | os.PathLike[str], *, set: Mapping[str, Any] | None = None) -> Space:  # noqa: A002
    """Loads a space from a file, or by its name from the library.

    Args:
        set: overrides by path, ``{"dims.width": 64}``.

    Errors:
        SpecError: as `Space`, and everything that is wrong with the file.
    """
    tree = read(library_file(path))
    header(tree, "archspace", "space")
    return Space(resolve(tree, {path: _marked(value) for path, value in (set or {}).items()}))


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
    raise SpecError(Problem(f"no file and no space of the library is called {str(path)!r}", hint, mark=Mark(str(path), 1, 1)))


def _marked(value: Any) -> Any:
    """Plain mappings and lists as those of a file, so that an override may be a choice."""
    if isinstance(value, Mapping):
        return Map({key: _marked(inner) for key, inner in value.items()})
    return Seq([_marked(inner) for inner in value]) if isinstance(value, (list, tuple)) else value


def _domain(node: Range | Alternative) -> str | None:
    if isinstance(node, Range):
        return f"a number from {node.low} to {node.high}" + (f" in steps of {node.step}" if node.step else "")
    return f"there are {', '.join(str(label) for label in node.labels)}"
