"""Weights laid out for inference: reading them is what the next token costs.

`pack` keeps every number and changes the order in memory; `quantize` keeps matrices in 8 bits, a quarter of the bytes.
Both work in place, leave embeddings, norms and stacked experts alone, and give models that can no longer be trained.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from compiler.registry import Leaf

Make = Callable[[Tensor, Tensor | None], nn.Module]


class PackedLinear(Leaf):
    """``x @ weight.T + bias`` for ``[..., inputs]``, the weight as the kernel for so many rows reads it fastest.

    One row in single precision is multiplied by the transposed matrix where that has long rows; more go through
    oneDNN's blocked layout.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None, rows: int) -> None:
        super().__init__()
        weight = weight.detach()
        self.blocked = rows > 1 and weight.device.type == "cpu" and torch.backends.mkldnn.is_available()
        if self.blocked:
            weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)
        elif rows == 1 and weight.dtype == torch.float32 and weight.shape[0] >= weight.shape[1]:
            weight = weight.T.contiguous().T
        self.register_buffer("weight", weight)
        self.register_buffer("bias", None if bias is None else bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        if self.blocked:
            out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
            return out
        return nn.functional.linear(x, self.weight, self.bias)


class Int8Linear(Leaf):
    """``x @ weight.T + bias`` for ``[..., inputs]``, each row of the weight an integer from -127 to 127 times a scale.

    Dettmers et al. 2022, "LLM.int8()", arXiv 2208.07339, without its outliers. Up to ``FEW`` rows are rounded to
    bfloat16 and multiplied with the integers; more are worth the matrix itself.
    """

    FEW = 32
    weight: Tensor
    scale: Tensor
    one: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        weight = weight.detach()
        scale = weight.float().abs().amax(dim=1).clamp(min=1e-12) / 127
        self.register_buffer("scale", scale)
        self.register_buffer("weight", (weight / scale[:, None].to(weight.dtype)).round().to(torch.int8))
        self.register_buffer("one", torch.ones_like(scale, dtype=torch.bfloat16))
        self.register_buffer("bias", None if bias is None else bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, -2)
        scale = self.scale.to(x.dtype)
        if rows.shape[0] <= self.FEW:
            out = torch._weight_int8pack_mm(rows.to(torch.bfloat16), self.weight, self.one).to(x.dtype) * scale
        else:
            out = rows @ (self.weight.to(x.dtype) * scale[:, None]).T
        out = out.unflatten(0, x.shape[:-1])
        return out if self.bias is None else out + self.bias


def pack(model: fx.GraphModule, *, rows: int = 1) -> fx.GraphModule:
    """Lays out a model's plain weight matrices and its head for passes over ``rows`` tokens at a time, in place.

    A batch of 8 sequences that decodes has 8 rows. Gives the model.
    """
    return _replaced(model, lambda weight, bias: PackedLinear(weight, bias, rows))


def quantize(model: fx.GraphModule) -> fx.GraphModule:
    """Keeps a model's plain weight matrices and its head in 8 bits, in place. Gives the model."""
    return _replaced(model, Int8Linear)


@torch.no_grad()
def _replaced(model: fx.GraphModule, make: Make) -> fx.GraphModule:
    made: dict[int, nn.Module] = {}
    for module in list(model.modules()):
        for name, child in list(module._modules.items()):
            if type(child) is nn.Linear:
                if id(child) not in made:
                    made[id(child)] = make(child.weight, child.bias)
                module._modules[name] = made[id(child)]
    _heads(model, make)
    return model.eval()


def _heads(model: Any, make: Make) -> None:
    """Heads are products in the model's own graph, which becomes that of inference alone."""
    if getattr(model, "forms", None) is not None:
        graph = model.forms[False]
        model.forms = None
        model.graph = graph
    for node in list(model.graph.nodes):
        if node.op != "call_function" or node.target is not torch._C._nn.linear or node.args[1].op != "get_attr":
            continue
        hidden, weight, bias = (*node.args, None)[:3]
        owner = weight.target.rpartition(".")[0]
        head = model.get_submodule(owner)
        head.add_module("inference", make(head.weight, head.bias if bias is not None else None))
        with model.graph.inserting_before(node):
            node.replace_all_uses_with(model.graph.call_module(f"{owner}.inference", (hidden,)))
        model.graph.erase_node(node)
        for read in (weight, bias):
            if read is not None and not read.users:
                model.graph.erase_node(read)
    model.recompile()
