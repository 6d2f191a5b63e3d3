"""One node of a graph as a model over features, and attention with all its pairs written out."""

from typing import Any

import torch
from torch import Tensor

from archspec.spec import loads
from compiler.model import compile
from tests.models import perturbed


def body(
    node: str, axes: str = "token: 12", width: int = 16, *, interface: str = "", causal: str = "", limit: int = 64
) -> Any:
    """A model of the nodes over an input ``x`` with these axes, its weights perturbed.

    Args:
        node: YAML of a node, or of several in a list.
        interface: more fields of the interface, such as ``labels: {speaker: 3}``.
        causal: the causal axis.
        limit: places along an axis.
    """
    graph = node if node.startswith("[") else f"[{node}]"
    stream = f"{{axes: {{{axes}}}, width: {width}, limit: {limit}{f', causal: {causal}' if causal else ''}}}"
    text = f"""
archspec: 1
name: body
interface: {{kind: backbone, inputs: {{x: {stream}}}{f", {interface}" if interface else ""}}}
blocks:
  layer: {{kind: transformer_layer, mixer: {{kind: attention, heads: 2}}, channel: {{kind: mlp, ratio: 2}}}}
graph: {graph}
"""
    return perturbed(compile(loads(text))).eval()


def by_pairs(
    state: dict[str, Tensor], x: Tensor, heads: int, *, allowed: Tensor | None = None, bias: Tensor | float = 0.0
) -> Tensor:
    """An attention without biases over all pairs of tokens.

    Args:
        state: ``qkv.weight`` and ``out.weight``.
        allowed: true where a token may read another.
        bias: added to the scores.
    """
    parts = (x @ state["qkv.weight"].T).chunk(3, dim=-1)
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in parts)
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + bias
    if allowed is not None:
        scores = scores.masked_fill(~allowed, float("-inf"))
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2) @ state["out.weight"].T


def under(model: torch.nn.Module, path: str) -> dict[str, Tensor]:
    """The weights of a part of a model, by their names inside it."""
    return {name.removeprefix(f"{path}."): value for name, value in model.state_dict().items() if name.startswith(path)}


def assert_close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> None:
    assert b.std() > 0.01  # the comparison is of something
    torch.testing.assert_close(a, b, atol=tolerance, rtol=0)
