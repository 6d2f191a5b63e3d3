"""The Zen score: how much a network of random weights makes of a small change of its input."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from search.objectives import Direction, Objective, Probed
from search.proxies.probing import results
from search.proxies.watching import LAYER_NORMS, RMS_NORMS, Replacing

CHANGE = 0.01  # of the input, as Lin et al. have it


class ZenScore(Objective):
    """``ln E |f(x) - f(x + 0.01 e)| + sum ln s`` with x, e and all matrices N(0, 1); more is better.

    f are the outputs, |.| is the Euclidean norm of a sample, and s are the standard deviations, of RMS norms the root
    mean squares, by which norms divide: what they take off is added again. x stands for the embedded tokens, or for a
    real input. The source leaves out residual connections, here they stay.

    Lin et al. 2021, "Zen-NAS", arXiv 2102.01063.
    """

    kind: Literal["zen_score"] = "zen_score"
    repeats: int = Field(4, ge=1, description="draws of weights and inputs")

    @property
    def direction(self) -> Direction:
        return "maximize"

    def probe(self, probed: Probed) -> float:
        changes, scales = [], []
        with torch.no_grad():
            for repeat in range(self.repeats):
                draw = partial(_normal, torch.Generator().manual_seed(repeat))
                weights = {name: draw(value) for name, value in probed.weights.items()}
                divided: list[float] = []
                before = _outputs(probed, weights, repeat, 0.0, divided)
                after = _outputs(probed, weights, repeat, CHANGE, [])
                changes.append(torch.cat([b - a for b, a in zip(before, after, strict=True)], 1).norm(dim=1).mean())
                scales.append(sum(divided))
        return torch.stack(changes).double().mean().log().item() + sum(scales) / self.repeats


def _normal(generator: torch.Generator, like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=generator).to(like)


def _outputs(
    probed: Probed, weights: dict[str, Tensor], seed: int, change: float, divided: list[float]
) -> list[Tensor]:
    """``[batch, all]`` of each output for noise in place of the inputs; notes ``ln s`` of every norm."""
    generator = torch.Generator().manual_seed(1_000_003 + seed)

    def noise(like: Tensor) -> Tensor:
        x = _normal(generator, like)
        return x + change * _normal(generator, like)

    ids = {value.data_ptr() for value in probed.batch.inputs.values() if not value.is_floating_point()}
    inputs = {name: noise(value) if value.is_floating_point() else value for name, value in probed.batch.inputs.items()}

    def embedding(given: Tensor, table: Tensor, *args: Any, **named: Any) -> Tensor:
        rows = F.embedding(given, table, *args, **named)
        return noise(rows) if given.data_ptr() in ids else rows

    def norm(function: Any, mean: bool, x: Tensor, shape: Any, *args: Any, **named: Any) -> Tensor:
        over = tuple(range(-len(shape), 0))
        square = x.var(over, correction=0) if mean else x.square().mean(over)
        divided.append(0.5 * square.double().mean().log().item())
        y: Tensor = function(x, shape, *args, **named)
        return y

    replaced: dict[Any, Any] = {F.embedding: embedding}
    replaced |= {function: partial(norm, function, True) for function in LAYER_NORMS}
    replaced |= {function: partial(norm, function, False) for function in RMS_NORMS}
    with Replacing(replaced):
        outputs = torch.func.functional_call(probed.model, weights, (), inputs)
    return [output.flatten(1).float() for output in results(outputs)]
