"""Which module computes a kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from torch import Tensor, nn

from archspec.kind import Kind

if TYPE_CHECKING:
    from compiler.decoding import Past

M = TypeVar("M", bound=nn.Module)
MODULES: dict[type[Kind], type[nn.Module]] = {}


def builds(*kinds: type[Kind]) -> Callable[[type[M]], type[M]]:
    """Ties a module to the kinds that it computes."""

    def tie(module: type[M]) -> type[M]:
        for kind in kinds:
            MODULES[kind] = module
        return module

    return tie


class Leaf(nn.Module):
    """A module that a trace keeps as one call: it reads ``self.training``, or what it does depends on the data.

    Attributes:
        across: the sum of a number over all processes, where several have parts of the batch.
    """

    across: Callable[[Tensor], Tensor] | None = None

    def over_all(self, part: Tensor) -> Tensor:
        """The sum over all parts of the batch."""
        return part if self.across is None else self.across(part)


class Keeper(Leaf):
    """A leaf that, while a model decodes, goes on from what it kept of earlier calls.

    Attributes:
        decoding: set for the time of a call by `compiler.decoding.Past`; None outside.
        goes_on: whether it is on a causal stream; another one is the same in each call.
    """

    decoding: Past | None = None
    goes_on = True
