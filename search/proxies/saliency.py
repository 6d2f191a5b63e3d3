"""Proxies by gradients of the weights: how much the loss, or the signal, depends on each of them."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from search.objectives import Direction, Objective, Probed
from search.proxies.probing import results
from search.proxies.watching import LAYER_NORMS, RMS_NORMS, Replacing


class GradientNorm(Objective):
    """Sum of the Euclidean norms of the gradients of all matrices, kernels and tables, on one batch; more is better.

    Abdelfattah et al. 2021, "Zero-cost proxies for lightweight NAS", arXiv 2101.08134.
    """

    kind: Literal["gradient_norm"] = "gradient_norm"

    @property
    def direction(self) -> Direction:
        return "maximize"

    @property
    def unit(self) -> str:
        return "nats"

    def probe(self, probed: Probed) -> float:
        return sum(gradient.norm().item() for gradient in probed.gradients.values())


class Snip(Objective):
    """Sum of ``|weight * gradient|`` on one batch: what the loss feels when weights go, to first order; more is better.

    Lee, Ajanthan and Torr 2019, "SNIP", arXiv 1810.02340; summed as a proxy by Abdelfattah et al. 2021,
    arXiv 2101.08134.
    """

    kind: Literal["snip"] = "snip"

    @property
    def direction(self) -> Direction:
        return "maximize"

    @property
    def unit(self) -> str:
        return "nats"

    def probe(self, probed: Probed) -> float:
        return sum((probed.weights[name] * by).abs().sum().item() for name, by in probed.gradients.items())


class Synflow(Objective):
    """Synaptic flow, ``ln sum |weight * dR/dweight|`` where R is the sum of all outputs; more is better.

    Every parameter is replaced by its absolute value and real inputs by ones; token ids stay, of the first sample.
    Norms divide by a constant, the root mean square that they meet: R would otherwise not change with the size of what
    is before them, and its gradients would cancel. Gates and activations stay as they are.

    Tanaka et al. 2020, "Pruning neural networks without any data by iteratively conserving synaptic flow",
    arXiv 2006.05467.
    """

    kind: Literal["synflow"] = "synflow"

    @property
    def direction(self) -> Direction:
        return "maximize"

    def probe(self, probed: Probed) -> float:
        absolute = {name: value.detach().abs() for name, value in probed.model.named_parameters()}
        weights = {name: absolute[name].requires_grad_() for name in probed.weights}
        inputs = {
            name: torch.ones_like(value[:1]) if value.is_floating_point() else value[:1]
            for name, value in probed.batch.inputs.items()
        }
        replaced = {**dict.fromkeys(LAYER_NORMS, _scaled_and_shifted), **dict.fromkeys(RMS_NORMS, _scaled)}
        with Replacing(replaced), torch.enable_grad():
            outputs = torch.func.functional_call(probed.model, absolute, (), inputs)
            flow = torch.stack([output.sum() for output in results(outputs)]).sum()
        found = torch.autograd.grad(flow, list(weights.values()), allow_unused=True, materialize_grads=True)
        flows = [
            (weight.detach() * by).abs().double().sum() for weight, by in zip(weights.values(), found, strict=True)
        ]
        return torch.stack(flows).sum().log().item()


def _scaled(x: Tensor, shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """An RMS norm whose statistic is a constant."""
    over = tuple(range(-len(shape), 0))
    square = x.detach().square().mean(over, keepdim=True)
    y = x * (square + (torch.finfo(x.dtype).eps if eps is None else eps)).rsqrt()
    return y if weight is None else y * weight


def _scaled_and_shifted(
    x: Tensor, shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5, *_: Any
) -> Tensor:
    """A layer norm that takes no mean off, so that flows stay positive, and whose statistic is a constant."""
    y = _scaled(x, shape, weight, eps)
    return y if bias is None else y + bias
