"""The weights of a model by the names that they have in its spec, however they are laid out.

Where matrices are fused into one product or stacked over experts, each is a view of what is stored: writing into it
writes the stored tensor. Names follow the nodes: ``layers.3.mixer.body.query.weight``,
``layers.3.channel.body.experts.7.gate.weight``; a layer that stands in a list is called by its own name there.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from torch import Tensor, nn

from archspec.graph import Graph, Node
from compiler.build import attribute
from compiler.modules.grouped import GroupedLinear


def logical(model: nn.Module) -> dict[str, Tensor]:
    """Views of a model's parameters and stored buffers by their logical names; tied ones stand under each name."""
    spec: Any = model.spec
    nodes = list(_named(spec.graph, "", ""))
    renamed = {path: name for path, name, _ in nodes}
    found: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        path, _, last = name.rpartition(".")
        module = model.get_submodule(path)
        parts = path.split(".")
        for length in range(len(parts), 0, -1):
            known = renamed.get(".".join(parts[:length]))
            if known is not None:
                path = ".".join([known, *parts[length:]])
                break
        for word, view in _views(module, last, tensor):
            prefix = path.rpartition(".")[0] if word != last else path
            found[f"{prefix}.{word}" if prefix else word] = view
    for _, user, node in nodes:
        if node.shares is not None:
            owner = user.removesuffix(node.name) + node.shares
            for name in [name for name in found if name.startswith(f"{owner}.")]:
                found.setdefault(user + name.removeprefix(owner), found[name])
    return found


def named(graph: Graph) -> Iterator[tuple[str, Node]]:
    """Nodes of a graph and its bodies by their logical names."""
    return ((name, node) for _, name, node in _named(graph, "", ""))


def _views(module: nn.Module, last: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """What a stored tensor is made of; names are below the module's parent where there are several."""
    roles: tuple[str, ...] | None = getattr(module, "roles", None)
    if roles is None:
        yield last, tensor
        return
    sizes: list[int] = getattr(module, "parts", [0])
    if not isinstance(module, GroupedLinear):
        for role, start, size in zip(roles, accumulate([0, *sizes]), sizes, strict=False):
            yield f"{role}.{last}", tensor.narrow(0, start, size)
        return
    sizes = sizes if sum(sizes) else [tensor.shape[-1]]
    for expert in range(tensor.shape[0]):
        for role, start, size in zip(roles, accumulate([0, *sizes]), sizes, strict=False):
            yield f"{expert}.{role}.{last}", tensor[expert].narrow(-1, start, size).t()


def _named(
    graph: Graph, path: str, name: str, lone: tuple[str, str] | None = None
) -> Iterator[tuple[str, str, Node]]:  # fmt: skip
    """Nodes with the paths of their modules and their logical names, in which sequences do not show."""
    for node in graph.nodes:
        here, called = lone or (path + attribute(node.name), name + node.name)
        yield here, called, node
        for slot, body in node.bodies.items():
            word = slot.removeprefix("rounds.")
            inside, said = f"{here}.{word}", f"{called}.{word}"
            single = body.single if not slot.startswith("rounds.") else None
            if node.kind.name_ == "sequence":
                yield inside, called, node
                said = f"{called}.{single.name}" if single else called
            yield from _named(body, f"{inside}.", f"{said}.", (inside, said) if single else None)
