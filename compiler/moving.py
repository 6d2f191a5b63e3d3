"""Numbers that move while a model trains (`archspec.moving`), as what traced code reads.

A number is a tensor of its own that `move` sets in place before a step: nothing is traced or compiled anew, and no
checkpoint holds it, since it follows from the step. A model that nobody moves computes with the final numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, fx, nn

from archspec.moving import Course, Draw, Moving
from compiler.registry import Leaf


class Number(Leaf):
    """The present value of a number that moves.

    Attributes:
        number: the same on the host, for what decides how much is computed.
    """

    value: Tensor

    def __init__(self, course: Course) -> None:
        super().__init__()
        self.course, self.number = course, course.final
        self.register_buffer("value", torch.empty((), device="meta"), persistent=False)

    def fill(self) -> None:
        self.value.fill_(self.number)

    def put(self, number: float) -> None:
        self.number = number
        self.value.fill_(number)

    def forward(self) -> Tensor:
        return self.value


def number(said: float) -> float | Number:
    """What a module keeps of a number of its spec: itself, or what holds it while it moves."""
    return Number(said.course) if isinstance(said, Moving) else said


def now(kept: float | Number) -> float | Tensor:
    """The present value of what `number` gave."""
    return kept() if isinstance(kept, Number) else kept


def moved(said: float) -> Number | None:
    """What holds a number of a spec while it moves; None for one that stays."""
    return Number(said.course) if isinstance(said, Moving) else None


def numbers(model: nn.Module) -> Iterator[Number]:
    """All numbers of a model that move."""
    return (module for module in model.modules() if isinstance(module, Number))


def move(model: nn.Module | Iterable[Number], progress: float, draw: Draw | None = None) -> None:
    """Sets the numbers of a model that move to their values at a progress of training from 0 to 1.

    Args:
        draw: the seed of the run and the number of the training step; without it, what is drawn in training has its
            default.
    """
    for one in numbers(model) if isinstance(model, nn.Module) else model:
        one.put(one.course.at(progress, draw))


def settle(model: fx.GraphModule) -> fx.GraphModule:
    """What training leaves behind: the model of `Spec.final`, in which no number moves, over the same weights.

    The model itself, where none does.
    """
    from compiler.model import compile

    if not model.spec.moving:  # type: ignore[union-attr]
        return model
    settled = compile(model.spec.final, device="meta")  # type: ignore[union-attr]
    for path, module in settled.named_modules():
        source = model.get_submodule(path)
        module._parameters.update({name: source._parameters[name] for name in module._parameters})
        module._buffers.update({name: source._buffers[name] for name in module._buffers})
    if hasattr(model, "beside"):
        settled.beside = model.beside
    return settled.train(model.training)
