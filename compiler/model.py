"""From a spec to a model: a traced module over the interface's tensors, with its weights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

import compiler.modules  # noqa: F401  registers the built-in modules
from archspec import part
from archspec.graph import Graph, Node
from archspec.kinds.interface import Entry
from archspec.spec import Spec
from compiler.build import Blocks, Body, attribute, call, read
from compiler.initialise import materialise
from compiler.tokens import Tokens
from compiler.trace import Signature, Traced, trace, traced_graph


def compile(
    spec: Spec, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32, seed: int = 0
) -> fx.GraphModule:
    """Builds the model that a spec describes.

    Its forward takes one tensor for each input of the interface, by name: ids ``[batch, length]``, features
    ``[batch, tokens, width]`` or a grid ``[batch, rows, columns, channels]``; then the labels that tokens carry and,
    with padding, ``valid`` (``source_valid`` and ``target_valid`` where two inputs have tokens). It gives the output's
    tensor, or a dictionary if there are several.

    Args:
        device: ``"meta"`` allocates nothing.
        seed: decides every initial weight, each by its own name.
    """
    graph = spec.graph
    signature, entry = _entry(spec)
    root = Body(graph, Blocks())
    model: Any = trace(root, signature, re.sub(r"\W", "_", spec.name), graph.differs_in_training, entry)
    _tie(model, graph)
    entries = {name: _part(root, graph, entry) for name, entry in spec.interface.entries.items()}
    model.spec = spec
    if torch.device(device).type != "meta":
        materialise(model, spec.init, device=device, dtype=dtype, seed=seed, layers=layers(graph))
    elif dtype != torch.float32:
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype)
    model.entries = {name: Traced(model, part, name) for name, part in entries.items()}
    return model  # type: ignore[no-any-return]


def _part(root: Body, graph: Graph, entry: Entry) -> fx.Graph:
    """The graph from some streams to others: tensors ``[batch, tokens, width]`` in the order of the entry."""
    needs = {name: part.stream(graph, name) for name in entry.from_}
    signature = Signature(Graph({name: type_ for name, (_, type_) in needs.items()}, len(needs), [], {}, {}))
    wanted = [part.stream(graph, name)[0] for name in entry.to]

    def run(root: Any, proxies: Any, losses: list[Tensor]) -> Any:
        tokens, _ = signature.unpack(proxies)
        values = {(ref.node, ref.port): value for (ref, _), value in zip(needs.values(), tokens, strict=True)}
        root.compute(values, part.between(graph, {name for name, _ in values}, wanted), tokens)
        results = {name: read(values, ref).features for name, ref in zip(entry.to, wanted, strict=True)}
        return next(iter(results.values())) if len(results) == 1 else results

    return traced_graph(root, signature, False, run)


def layers(graph: Graph) -> int:
    """Residual branches of a graph and its bodies, halved: the depth that initialisation schemes mean."""
    return max(1, _branches(graph) // 2)


def _branches(graph: Graph) -> int:
    return sum(
        (node.kind.name_ == "residual") + sum(_branches(body) for body in node.bodies.values()) for node in graph.nodes
    )


def _entry(spec: Spec) -> tuple[Signature, Any]:
    """The model's inputs as tensors, and how they become tokens."""
    graph, interface = spec.graph, spec.interface
    signature = Signature(graph)
    carried = interface.carried()
    signature.names = [*graph.inputs, *(word for words in carried.values() for word in words.values())]

    def entry(root: nn.Module, proxies: Any, losses: list[Tensor]) -> Any:
        given = dict(zip(signature.names, proxies, strict=True))
        inputs = []
        for name, stream in graph.inputs.items():
            tensor = given[name]
            if len(stream.axes) > 1:
                tensor = tensor.flatten(1, len(stream.axes))
            told = {word: given[other] for word, other in carried.get(name, {}).items()}
            inputs.append(Tokens(tensor, stream, valid=told.pop("valid", None), labels=told))
        outputs: dict[str, Any] = {name: t.features for name, t in call(root, *inputs, outer={}).items()}
        if losses:
            outputs["loss"] = sum(losses[1:], losses[0])
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    return signature, entry


def _tie(model: nn.Module, graph: Graph) -> None:
    """Heads that are tied use the embedding's table."""
    for path, node in _tied(graph, ""):
        head: Any = model.get_submodule(path)
        head._parameters["weight"] = model.get_submodule(attribute(str(node.tied)))._parameters["weight"]


def _tied(graph: Graph, prefix: str, alone: str | None = None) -> Iterator[tuple[str, Node]]:
    """The tied heads inside a graph, with the paths of their modules."""
    for node in graph.nodes:
        path = alone or prefix + attribute(node.name)
        if node.tied:
            yield path, node
        for slot, body in node.bodies.items():
            inner = f"{path}.{slot.removeprefix('rounds.')}"
            lone = body.single is not None and not slot.startswith("rounds.")  # then its module stands in the slot
            yield from _tied(body, f"{inner}.", inner if lone else None)
