"""A marked tree with choices in it, as a tree of choices.

`Constant` is what does not vary and is shared by all members; `Product` a mapping or list of which some parts vary;
`Alternative` a ``choose``; `Range` a ``range`` (in `spaces.ranges`); `Rounds` the bodies of a repeat in which every
round chooses for itself. An assignment is a flat list of *codes*, one slot for each place at which something is chosen:
the position of an option or the drawn number, None where the choice is not reached.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from archspec.errors import Mark
from archspec.source import Map, Seq
from spaces.constraints import Constraint
from spaces.ranges import Range

Code = int | float | None
Scalar = str | int | float | bool | None


@dataclass(frozen=True, eq=False)
class Constant:
    value: Any
    size: int = 0
    raw: int | None = 1
    reads: tuple[str, ...] = ()
    factors: tuple[str, ...] = ()


class Alternative:
    """A ``choose``: one slot for the option, then the slots of every option.

    Attributes:
        labels: what an option is called in values: itself if it is a scalar, else its name or kind.
        offsets: where the slots of an option begin, from the alternative's own slot.
        raw: number of assignments when no constraint counts, None for a continuum.
        reads: dims that decide what is legal inside; ``factors``, dims that decide what the value is.
    """

    size: int
    raw: int | None
    reads: tuple[str, ...]
    factors: tuple[str, ...]

    def __init__(
        self, options: list[Node], labels: list[Scalar], *, default: int = 0, path: str = "",
        mark: Mark | None = None, marks: list[Mark | None] | None = None,
    ) -> None:  # fmt: skip
        self.options, self.labels, self.default, self.path, self.mark = options, labels, default, path, mark
        self.marks = marks or [None] * len(options)
        self.positions = {_key(label): number for number, label in enumerate(labels)}
        self.offsets, self.size = _offsets(options, 1)
        self.raw = _sum(option.raw for option in options)
        self.reads = _names(option.reads for option in options)
        self.factors = _names(option.factors for option in options)

    def position(self, label: object) -> int | None:
        """Which option has that label."""
        return self.positions.get(_key(label)) if isinstance(label, (str, int, float, bool, type(None))) else None


@dataclass(frozen=True, eq=False)
class Part:
    """A part of a product that varies. A part with no place in the tree (``times``) only counts rounds."""

    key: str | int
    node: Node
    offset: int
    shown: bool = True
    optional: bool = False  # a list item that may be absent


class Rounds:
    """One body for each round.

    Attributes:
        times: how many rounds; a node of its own product, or a constant (a number or an expression over dims).
        listed: the member lists the bodies (`repeat`); else it has one and overrides for the others (`loop`).
        most: the largest number of rounds; round ``r`` has its slots at ``r * body.size``.
    """

    size: int
    raw: int | None
    reads: tuple[str, ...]
    factors: tuple[str, ...]

    def __init__(
        self, body: Node, times: Node, most: int, *, path: str, reads: tuple[str, ...], listed: bool = True
    ) -> None:
        self.body, self.times, self.most, self.path, self.listed = body, times, most, path, listed
        self.size = most * body.size
        self.optional = may_be_absent(body)
        self.reads = _names([body.reads, reads])
        self.factors = _names([body.factors, reads])
        self.raw = None if body.raw is None else body.raw**most


class Product:
    """A mapping or a list of which some parts vary.

    Attributes:
        template: what does not vary, with a place for every part that does.
        constraints: those that are checked here; ``deferred``, those that wait for the elaborator.
        joint: parts that are drawn together, since a constraint or a number of rounds ties them.
        fixed: fields that constraints read and that do not vary.
        rounds: the part that holds `Rounds`, drawn after the joint parts.
        binding: dims that the joint parts themselves read.
    """

    size: int
    raw: int | None
    reads: tuple[str, ...]
    factors: tuple[str, ...]

    def __init__(
        self, template: Map | Seq, parts: Sequence[tuple[Any, Node]], constraints: list[Constraint] | None = None,
        *, hidden: tuple[str, ...] = (), fixed: dict[str, Any] | None = None, path: str = "",
    ) -> None:  # fmt: skip
        self.template, self.path, self.mark, self.fixed = template, path, template.mark, fixed or {}
        offsets, self.size = _offsets([node for _, node in parts], 0)
        optional = isinstance(template, Seq)
        self.parts = [
            Part(key, node, offset, key not in hidden, optional and may_be_absent(node))
            for (key, node), offset in zip(parts, offsets, strict=True)
        ]
        self.constraints = [one for one in constraints or [] if one.local]
        self.deferred = [one for one in constraints or [] if not one.local]
        tied = {name for one in self.constraints for name in one.fields} | set(hidden)
        self.rounds = next((part for part in self.parts if isinstance(part.node, Rounds)), None)
        self.joint = [part for part in self.parts if part.key in tied and part is not self.rounds]
        self.free = [part for part in self.parts if part not in self.joint and part is not self.rounds]
        binding = [one.dims for one in self.constraints] + [part.node.reads for part in self.joint]
        if self.rounds is not None:
            binding.append(self.rounds.node.reads)
        self.binding = _names(binding)
        self.reads = _names([self.binding, *(part.node.reads for part in self.parts)])
        self.factors = _names([part.node.factors for part in self.parts])
        self.raw = product_of(part.node.raw for part in self.parts)

    @property
    def ties(self) -> bool:
        """Whether its parts cannot be drawn one by one."""
        return bool(self.constraints) or self.rounds is not None


Node = Constant | Range | Alternative | Product | Rounds


@dataclass(frozen=True, eq=False)
class Slot:
    """One place at which something is chosen.

    Attributes:
        path: stable name, as ``graph[1].body[3].mixer.attention.heads``.
        node: the `Range` or `Alternative` there.
        given: slots and options that must be taken for this one to be reached.
        fold: the path with the numbers of rounds left out, the same in every round; ``every`` has ``[*]`` for them.
    """

    path: str
    node: Range | Alternative
    given: tuple[tuple[int, int], ...] = ()
    fold: str = ""
    every: str = ""


def slots_of(root: Node, path: str = "", start: int = 0) -> tuple[Slot, ...]:
    """All slots of a node that stands at a path, in the order of the codes; its first slot has the number ``start``."""
    found: list[Slot] = []

    def visit(node: Node, path: str, fold: str, every: str, given: tuple[tuple[int, int], ...]) -> None:
        if isinstance(node, (Range, Alternative)):
            here = start + len(found)
            found.append(Slot(path, node, given, fold, every))
            if isinstance(node, Alternative):
                for number, (option, label) in enumerate(zip(node.options, node.labels, strict=True)):
                    visit(option, f"{path}.{label}", f"{fold}.{label}", f"{every}.{label}", (*given, (here, number)))
        elif isinstance(node, Product):
            for part in node.parts:
                visit(part.node, _below(path, part.key), _below(fold, part.key), _below(every, part.key), given)
        elif isinstance(node, Rounds):
            # The part is called `rounds`, as in the member; its choices are named after the body, as in the space.
            outer, folded, all_ = (text.removesuffix("rounds") for text in (path, fold, every))
            for number in range(node.most):
                visit(node.body, f"{outer}body[{number}]", f"{folded}body", f"{all_}body[*]", given)

    visit(root, path, path, path, ())
    assert len(found) == root.size
    assert len({slot.path for slot in found}) == len(found)
    return tuple(found)


def below(node: Node) -> list[Node]:
    """The nodes directly inside a node."""
    if isinstance(node, Alternative):
        return node.options
    if isinstance(node, Product):
        return [part.node for part in node.parts]
    return [node.body] if isinstance(node, Rounds) else []


def may_be_absent(node: Node) -> bool:
    return isinstance(node, Alternative) and any(
        (isinstance(option, Constant) and option.value == "absent") or may_be_absent(option) for option in node.options
    )


def scalars(node: Node) -> Iterator[Any]:
    """As `leaves`, without mappings and lists."""
    return (leaf for leaf in leaves(node) if not isinstance(leaf, (Map, Seq)))


def leaves(node: Node) -> Iterator[Any]:
    """What may stand there; for a range the range itself, for what varies inside its template."""
    if isinstance(node, Alternative):
        for option in node.options:
            yield from leaves(option)
    elif isinstance(node, Constant):
        yield node.value
    else:
        yield node.template if isinstance(node, Product) else node


@dataclass
class Labels:
    """Labels of options, made distinct by numbering those that repeat."""

    taken: set[Any] = field(default_factory=set)

    def label(self, option: Any, block: str | None) -> Scalar:
        label: Scalar
        if isinstance(option, Map):
            words = (block, option.get("name"), option.get("kind"))
            label = next((word for word in words if isinstance(word, str)), "")
            label = label or next((word for word in ("choose", "range") if word in option), "mapping")
        elif isinstance(option, Seq):
            label = block or "list"
        else:
            label = option
        first, count = label, 1
        while _key(label) in self.taken:
            count += 1
            label = f"{first}#{count}"
        self.taken.add(_key(label))
        return label


def _key(label: object) -> tuple[bool, object]:
    """Equal for equal labels; ``true`` is not 1."""
    return isinstance(label, bool), label


def _below(path: str, key: str | int) -> str:
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else key


def _offsets(nodes: list[Node], start: int) -> tuple[list[int], int]:
    offsets = []
    for node in nodes:
        offsets.append(start)
        start += node.size
    return offsets, start


def _names(groups: Any) -> tuple[str, ...]:
    return tuple(sorted({name for group in groups for name in group}))


def product_of(counts: Iterable[int | None]) -> int | None:
    """A product in which None stands for infinitely many, unless something has none."""
    total: int | None = 1
    for count in counts:
        if count == 0:
            return 0
        total = None if total is None or count is None else total * count
    return total


def _sum(counts: Iterable[int | None]) -> int | None:
    total = 0
    for count in counts:
        if count is None:
            return None
        total += count
    return total
