"""Proxies by binary codes: which units are on, for each sample or token."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.errors import Problem, SpecError
from search.objectives import Direction, Objective, Probed
from search.proxies.watching import Replacing

# A unit is on when what enters is positive: where a rectifier passes it, and a sigmoid is more than half open.
UNITS = (F.relu, torch.relu, Tensor.relu, F.gelu, F.silu, torch.sigmoid, F.sigmoid, Tensor.sigmoid)


def codes(probed: Probed) -> list[Tensor]:
    """``[batch, ...]`` of each layer of units in order, true where one is on.

    Experts that see only some tokens are left out: their units have no place in a sample.

    Errors:
        SpecError: the model has no such units.
    """
    batch = len(probed.batch.targets)
    found: list[Tensor] = []

    def noted(function: Callable[..., Tensor], x: Tensor, *args: Any, **named: Any) -> Tensor:
        if x.dim() > 1 and len(x) == batch:
            found.append(x > 0)
        return function(x, *args, **named)

    with torch.no_grad(), Replacing({function: partial(noted, function) for function in UNITS}):
        probed.model(**probed.batch.inputs)
    if not found:
        cause = "there are no units whose activations could be compared"
        raise SpecError(Problem(cause, "a layer with relu, gelu, silu or sigmoid has them", "objectives"))
    return found


def agreement(on: Tensor) -> Tensor:
    """``[..., n, n]``: in how many of their units each two of n codes ``[..., n, units]`` agree."""
    on = on.float()
    return on @ on.mT + (1 - on) @ (1 - on).mT


class Naswot(Objective):
    """``ln det K``, K being in how many units each two samples of a batch agree; more is better: they are told apart.

    A sample's code are its units of all layers and tokens. For transformers the sign of what enters GELU and its like
    stands for that of ReLU, as in Serianni and Kalita 2023, "Training-free neural architecture search for RNNs and
    transformers", arXiv 2306.00288.

    Mellor et al. 2021, "Neural architecture search without training", arXiv 2006.04647.
    """

    kind: Literal["naswot"] = "naswot"

    @property
    def direction(self) -> Direction:
        return "maximize"

    def probe(self, probed: Probed) -> float:
        kernel = torch.stack([agreement(on.flatten(1)).double() for on in codes(probed)]).sum(0)
        return torch.linalg.slogdet(kernel).logabsdet.item()


class ActivationDistance(Objective):
    """The share of units in which two tokens of a sequence differ, a mean over pairs and layers; more is better.

    Serianni and Kalita 2023, arXiv 2306.00288, add up over layers in how many units tokens agree, which grows with
    units, tokens and layers. This is that figure for each unit, pair and layer, turned round.
    """

    kind: Literal["activation_distance"] = "activation_distance"

    @property
    def direction(self) -> Direction:
        return "maximize"

    def probe(self, probed: Probed) -> float:
        layers = [on.flatten(2) for on in codes(probed) if on.dim() > 2 and on.shape[1] > 1]
        if not layers:
            cause = "there are no tokens whose activations could be compared"
            raise SpecError(Problem(cause, "it is of models with several tokens", "objectives"))
        distances = []
        for on in layers:
            tokens, units = on.shape[1:]
            differ = units - agreement(on)
            distances.append(differ.sum((1, 2)).mean().item() / (units * tokens * (tokens - 1)))
        return sum(distances) / len(distances)
