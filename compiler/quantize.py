"""Weights in 8 bits: a model that decodes reads every weight for every token, and these are a quarter of the bytes.

Each output of a matrix has a scale of its own, ``weight = scale * integer`` with integers from -127 to 127 (Dettmers et
al. 2022, "LLM.int8()", arXiv 2208.07339, without its outliers). For inference alone: there is no gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from compiler.registry import Leaf

ROWS = 32
"""Up to so many tokens are multiplied with the integers; more are worth the matrix itself."""


class Int8Linear(Leaf):
    """``x @ weight.T + bias`` for ``[..., inputs]`` with weights ``[outputs, inputs]`` kept as integers."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        scale = weight.detach().float().abs().amax(dim=1).clamp(min=1e-12) / 127
        self.register_buffer("scale", scale)
        self.register_buffer("weight", (weight.detach() / scale[:, None].to(weight.dtype)).round().to(torch.int8))
        self.register_buffer("one", torch.ones(len(scale), dtype=torch.bfloat16, device=weight.device))
        self.register_buffer("bias", None if bias is None else bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, -2)
        if rows.shape[0] <= ROWS:
            out = torch._weight_int8pack_mm(rows.to(torch.bfloat16), self.weight, self.one).to(x.dtype)
            out = out * self.scale.to(x.dtype)
        else:
            out = rows @ (self.weight.to(x.dtype) * self.scale[:, None].to(x.dtype)).T
        out = out.unflatten(0, x.shape[:-1])
        return out if self.bias is None else out + self.bias


@torch.no_grad()
def quantize(model: fx.GraphModule) -> fx.GraphModule:
    """Keeps a model's plain weight matrices and its head in 8 bits, in place, for inference; gives the model.

    Embeddings, norms and stacked experts stay as they are.
    """
    for module in list(model.modules()):
        for name, child in list(module._modules.items()):
            if type(child) is nn.Linear:
                module._modules[name] = Int8Linear(child.weight, child.bias)
    _head(model)
    return model.eval()


def _head(model: Any) -> None:
    """Heads are products in the model's own graph."""
    forms = getattr(model, "forms", None)
    if forms is not None:
        model.graph = forms[False]  # from here on it is a model for inference
        model.forms = None
    for node in list(model.graph.nodes):
        if node.op != "call_function" or node.target is not torch._C._nn.linear:
            continue
        hidden, weight, bias = (*node.args, None)[:3]
        if weight.op != "get_attr":
            continue
        owner, _, _ = weight.target.rpartition(".")
        head = model.get_submodule(owner)
        head.add_module("int8", Int8Linear(head.weight, head.bias if bias is not None else None))
        with model.graph.inserting_before(node):
            node.replace_all_uses_with(model.graph.call_module(f"{owner}.int8", (hidden,)))
        model.graph.erase_node(node)
        for unread in (weight, bias):
            if unread is not None and not unread.users:
                model.graph.erase_node(unread)
        head._parameters.pop("weight")
    model.recompile()
