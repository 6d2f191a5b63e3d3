"""One member of a space."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from archspec.source import Map
from archspec.spec import Spec
from spaces.choices import Alternative, Code

if TYPE_CHECKING:
    from spaces.space import Space


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
