"""Which candidates are refused, and why: by constraints checked here, and by elaborating samples."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from archspec.errors import Mark, Problem, SpecError
from spaces.choices import Alternative, Node, Product, Rounds, Slot, below, slots_of
from spaces.legality import Legality
from spaces.members import Numbers


@dataclass
class Refusals:
    """How many candidates were tried, and how many were refused for which reason."""

    tried: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, Problem] = field(default_factory=dict)

    def add(self, problem: Problem) -> None:
        """Counts a refusal under its reason: the sentence and its place, whatever the numbers and the round."""
        reason = re.sub(r"\d+(\.\d+)?", "#", f"{problem.cause} {problem.path}")
        self.reasons[reason] += 1
        self.examples.setdefault(reason, problem)

    @property
    def refused(self) -> int:
        return self.reasons.total()

    def lines(self) -> list[str]:
        """One line a reason, the most frequent first, with an example and its place."""
        shown = []
        for reason, count in self.reasons.most_common(8):
            problem = self.examples[reason]
            place = "  ".join(str(part) for part in (problem.mark, problem.path) if part)
            shown.append(f"{count:,} refused: {problem.cause}" + (f" ({place})" if place else ""))
        return shown

    def no_member(self, mark: Mark | None) -> SpecError:
        cause = f"the space has no member: {self.tried:,} candidates were tried"
        if self.refused < self.tried:
            cause = f"members of this space are too rare to be drawn: {self.tried:,} candidates were tried"
        hint = next(iter(self.examples.values())).hint if len(self.examples) == 1 else None
        return SpecError(Problem("\n  ".join([cause, *self.lines()]), hint, "", mark))


def never_legal(legality: Legality, slots: Iterable[Slot]) -> list[Problem]:
    """One problem for each option that the constraints checked here never allow, of those that can all be tried."""
    members = legality.members_of_dims
    if members is None:
        return []
    met = _Met(legality)
    deciding = legality.dims.read_by(legality.root.reads)
    for part in legality.dims.order:
        if part not in deciding:
            met.visit(part.node, {})
    for codes, dims in members:
        for part in deciding:
            met.cells(part.node, codes[part.offset : part.offset + part.node.size])
        met.visit(legality.root, dims)
    problems: dict[str, Problem] = {}
    dead: set[tuple[str, object]] = set()
    for slot in slots:
        node = slot.node
        if not isinstance(node, Alternative) or id(node) in met.open:
            continue
        if any(slot.fold.startswith(f"{fold}.{label}.") for fold, label in dead):
            continue
        for number, label in enumerate(node.labels):
            if (id(node), number) not in met.options:
                dead.add((slot.fold, label))
                cause = f"the option {label} is never legal"
                hint = _blame(legality, node)
                problems.setdefault(f"{slot.fold}.{label}", Problem(cause, hint, slot.fold, node.marks[number]))
    return list(problems.values())


def _blame(legality: Legality, wanted: Node) -> str | None:
    """The constraints that read a choice, stand beside it, or inside its options."""
    texts: list[str] = []
    dim = {part.key for part in legality.dims.order if any(slot.node is wanted for slot in slots_of(part.node))}

    def visit(node: Node, inside: bool) -> None:
        inside = inside or node is wanted
        if isinstance(node, Product):
            beside = inside or any(part.node is wanted for part in node.joint)
            for one in node.constraints:
                if beside or dim & {part.key for part in legality.dims.read_by(one.dims)}:
                    texts.append(one.text)
        for inner in below(node):
            visit(inner, inside)

    visit(legality.root, False)
    if not texts:
        return None
    return "nothing satisfies " + " and ".join(f"`{text}`" for text in dict.fromkeys(texts)) + " with it"


class _Met:
    """Options that were met in some legal combination."""

    def __init__(self, legality: Legality) -> None:
        self.legality = legality
        self.options: set[tuple[int, object]] = set()
        self.open: set[int] = set()  # alternatives among parts that are not tabulated
        self.seen: set[tuple[object, ...]] = set()

    def cells(self, node: Node, codes: Iterable[object]) -> None:
        for slot, code in zip(slots_of(node), codes, strict=True):
            if code is not None and isinstance(slot.node, Alternative):
                self.options.add((id(slot.node), code))

    def visit(self, node: Node, dims: Numbers) -> None:
        key = (id(node), *(dims.get(name) for name in node.reads))
        if key in self.seen:
            return
        self.seen.add(key)
        if isinstance(node, Alternative):
            for number in self.legality.options(node, dims):
                self.options.add((id(node), number))
                self.visit(node.options[number], dims)
        elif isinstance(node, Rounds):
            self.visit(node.body, dims)
        elif isinstance(node, Product):
            self.product(node, dims)

    def product(self, node: Product, dims: Numbers) -> None:
        for part in node.free:
            self.visit(part.node, dims)
        if not self.legality.tabulated(node):
            self.open |= {id(slot.node) for part in node.joint for slot in slots_of(part.node)}
            if node.rounds is not None:
                self.visit(node.rounds.node, dims)
            return
        if not node.ties:
            return
        rows = self.legality.rows(node, dims)
        cells = {cell for row in rows for cell in row.cells}
        places = {part.offset + at: slot.node for part in node.joint for at, slot in enumerate(slots_of(part.node))}
        for at, code in cells:
            self.options.add((id(places[at]), code))
        if node.rounds is not None and any(row.times for row in rows):
            self.visit(node.rounds.node, dims)
