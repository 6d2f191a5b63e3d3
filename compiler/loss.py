"""Training a head over a vocabulary without ever holding all of its logits.

`with_loss` rewrites a language model so that it takes targets and gives its loss. Its head and the cross-entropy become
one operator that works through the tokens in chunks and leaves their gradients behind, so that logits of one chunk are
all that is ever held (as in Hsu et al. 2024, "Liger Kernel", arXiv 2410.10989).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from compiler.registry import Leaf
from compiler.trace import Traced

CHUNK = 2**22
"""Logits held at a time."""


def with_loss(model: fx.GraphModule) -> fx.GraphModule:
    """The model with a further input ``targets`` ``[batch, length]`` (-100: not counted), giving its mean loss.

    With an output ``exits`` that is the mean loss of its rounds. It shares the weights of the model. Auxiliary losses
    of the training form are added. In ``eval()`` no gradient is prepared. The result has no second derivatives: keep
    the model itself for those.

    Errors:
        ValueError: the main output is not logits for each token.
    """
    forms = getattr(model, "forms", None)
    graph = fx.Graph()
    values: dict[fx.Node, fx.Node] = {}
    source = forms[True] if forms else model.graph
    result = graph.graph_copy(source, values)
    outputs = result if isinstance(result, dict) else {"": result}
    first = next(iter(outputs.values()))
    main = outputs.get("exits", first)
    if not isinstance(main, fx.Node):
        raise ValueError("the model has no output to train")
    if main is not first and not first.users:
        graph.erase_node(first)
    with graph.inserting_before(next(node for node in graph.nodes if node.op != "placeholder")):
        targets = graph.placeholder("targets")
    root = _Root(model)
    if main.target is torch._C._nn.linear and main.args[2] is None:
        hidden, weight, _ = main.args
        loss = graph.call_module("linear_cross_entropy", (hidden, weight, targets))
        if not main.users:
            graph.erase_node(main)
    else:
        loss = graph.call_module("cross_entropy", (main, targets))
    if "loss" in outputs:
        loss = graph.call_function(torch.add, (loss, outputs["loss"]))
    graph.output(loss)
    return Traced(root, graph, "WithLoss")


class _Root(nn.Module):
    """The model's modules beside the two ways to a loss."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        for name, child in model.named_children():
            self.add_module(name, child)
        self.linear_cross_entropy = LinearCrossEntropy()
        self.cross_entropy = CrossEntropy()


class CrossEntropy(Leaf):
    """The mean cross-entropy of logits ``[batch, length, vocabulary]``; -100 is not counted."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits.flatten(0, 1).float(), over_rounds(targets, logits).flatten())


def over_rounds(targets: Tensor, exits: Tensor) -> Tensor:
    """Targets ``[batch, length]`` for the tokens of ``[batch, rounds * length, …]``, the same in each round."""
    rounds = exits.shape[1] // targets.shape[1]
    return targets if rounds == 1 else targets.repeat(1, rounds)


class LinearCrossEntropy(Leaf):
    """The mean cross-entropy of ``hidden @ weight.T`` for ``hidden [batch, length, width]``."""

    def forward(self, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        rows, targets = hidden.flatten(0, 1), over_rounds(targets, hidden)
        if not (self.training and torch.is_grad_enabled()):
            return _chunked(rows, weight, targets.flatten())
        loss: Tensor = _Chunks.apply(rows, weight, targets.flatten())  # type: ignore[no-untyped-call]
        return loss


def _pieces(rows: Tensor, weight: Tensor) -> int:
    return max(1, CHUNK // weight.shape[0])


def _chunked(rows: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    size = _pieces(rows, weight)
    parts = zip(rows.split(size), targets.split(size), strict=True)
    total = sum(F.cross_entropy((part @ weight.t()).float(), target, reduction="sum") for part, target in parts)
    return total / (targets >= 0).sum()


class _Chunks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        count = (targets >= 0).sum()
        total = rows.new_zeros((), dtype=torch.float32)
        grad_rows = torch.empty_like(rows)
        grad_weight = torch.zeros_like(weight)
        size = _pieces(rows, weight)
        for start in range(0, rows.shape[0], size):
            part, target = rows[start : start + size], targets[start : start + size]
            logits = (part @ weight.t()).float()
            shifted = logits.sub_(logits.amax(-1, keepdim=True))
            counted = target >= 0
            place = target.clamp(min=0)[:, None]
            picked = shifted.gather(1, place)[:, 0]
            exponents = shifted.exp_()
            sums = exponents.sum(-1, keepdim=True)
            total += ((sums[:, 0].log() - picked) * counted).sum()
            grad = exponents.mul_((counted / count)[:, None] / sums)
            grad.scatter_add_(1, place, -(counted / count)[:, None].to(grad.dtype))
            grad = grad.to(rows.dtype)
            torch.mm(grad, weight, out=grad_rows[start : start + size])
            grad_weight.addmm_(grad.t(), part)
        ctx.save_for_backward(grad_rows, grad_weight)
        ctx.used = False
        return total / count

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Any:
        if ctx.used:
            raise RuntimeError("this loss keeps its gradients once; for a second backward use the model's logits")
        ctx.used = True
        grad_rows, grad_weight = ctx.saved_tensors
        return grad_rows.mul_(given[0]), grad_weight.mul_(given[0]), None  # in place: the head's is large
