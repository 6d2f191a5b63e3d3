"""Parameters that stop learning, by patterns on their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from archspec.errors import Problem, SpecError, did_you_mean
from archspec.patterns import pattern, word
from search.kinds import Fields

if TYPE_CHECKING:
    from torch import nn


class Frozen(Fields):
    """Parameters that learn no more from a share of the steps on.

    ``*`` stands for one part of a dotted name, ``**`` for any number; a pattern means all below what it names.
    """

    parameters: str = Field(min_length=1, description="a pattern, as **.router; * is one part of a name, ** any")
    after: float = Field(0.0, ge=0, lt=1, description="share of the steps in which they still learn")


class Freezing:
    """The parameters of a model and the steps in which they learn.

    Errors:
        SpecError: a pattern names no parameter, or nothing is left to learn.
    """

    def __init__(self, model: nn.Module, frozen: Sequence[Frozen] | None, steps: int) -> None:
        self.until: dict[nn.Parameter, int] = {}
        names = dict(model.named_parameters(remove_duplicate=False))
        for number, one in enumerate(frozen or ()):
            meant = pattern(one.parameters, below=True)
            hits = [parameter for name, parameter in names.items() if meant.match(name)]
            if not hits:
                hint = did_you_mean(word(one.parameters), {part for name in names for part in name.split(".")})
                hint = hint if hint and "did" in hint else "archc show lists the parts of a model"
                place = f"train.freeze[{number}].parameters"
                raise SpecError(Problem(f"no parameter is called {one.parameters!r}", hint, place))
            for parameter in hits:
                last = min(round(one.after * steps), self.until.get(parameter, steps))
                self.until[parameter] = last
        if self.until and len(self.until) == len({id(parameter) for parameter in names.values()}):
            first = max(self.until.values())
            cause = f"nothing is left to learn after step {first}"
            raise SpecError(Problem(cause, "name fewer parameters", "train.freeze"))

    def at(self, step: int) -> None:
        """Lets those learn that do in a step, counted from 0."""
        for parameter, last in self.until.items():
            parameter.requires_grad_(step < last)
            if step >= last:
                parameter.grad = None
