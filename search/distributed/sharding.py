"""A model whose parameters are shared out: FSDP2, a group of parameters for each block.

Zhao et al. 2023, "PyTorch FSDP: experiences on scaling fully sharded data parallel", arXiv 2304.11277.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, fx, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from archspec.errors import Problem, SpecError
from archspec.graph import Graph, Node
from archspec.spec import Spec
from compiler.initialise import materialise
from compiler.model import layers


def check(spec: Spec) -> None:
    """Refuses models that would not learn the same where each process sees its own samples.

    Errors:
        SpecError: which node, and why.
    """
    for node in _nodes(spec.graph):
        if not node.kind.apart:
            why = node.kind.exempt.get("batch", "in training, samples share their statistics")
            cause = f"{node.kind.name_} cannot be trained by several processes: {why}"
            raise SpecError(Problem(cause, "change that field, or train in one process", node.path, node.raw.mark))


def _nodes(graph: Graph) -> Iterator[Node]:
    for node in graph.nodes:
        yield node
        for body in node.bodies.values():
            yield from _nodes(body)


def shard(model: fx.GraphModule, mesh: DeviceMesh) -> None:
    """Shares out the parameters of a model on the meta device, in place; names stay.

    Errors:
        SpecError: a parameter is a single number.
    """
    for name, parameter in model.named_parameters():
        if parameter.ndim == 0:
            cause = f"{name} is a single number, which cannot be shared out"
            raise SpecError(Problem(cause, "train in one process"))
    # Said of views that are changed in place, which no traced model does to what a block gives.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
    for block in blocks(model):
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)


def blocks(model: fx.GraphModule) -> list[fx.GraphModule]:
    """The traced blocks that every pass calls, once, and that share no weights with others; inner ones first.

    Weights of the others go along with those of what is around them.
    """
    users = _uses(model)
    found: list[fx.GraphModule] = []

    def visit(around: fx.GraphModule) -> None:
        forms = getattr(around, "forms", None) or {True: around.graph}
        calls = [Counter(node.target for node in graph.nodes if node.op == "call_module") for graph in forms.values()]
        for path in calls[0]:
            block = around.get_submodule(path)
            if isinstance(block, fx.GraphModule) and all(times[path] == 1 for times in calls):
                visit(block)
                inside = _uses(block)
                if inside and all(users[key] == times for key, times in inside.items()):
                    found.append(block)

    visit(model)
    return found


def _uses(model: nn.Module) -> Counter[int]:
    """In how many places of a model each parameter stands."""
    places = (module._parameters.values() for module in model.modules())
    return Counter(id(parameter) for values in places for parameter in values if parameter is not None)


def fill(model: fx.GraphModule, spec: Spec, device: torch.device, seed: int) -> None:
    """Gives a model that is shared out its first values, those of `compiler.compile`, one parameter after the other."""

    def hold(blank: Tensor, value: Tensor) -> Tensor:
        assert isinstance(blank, DTensor)
        own = share(blank, value).clone()
        return DTensor.from_local(
            own, blank.device_mesh, blank.placements, run_check=False, shape=blank.shape, stride=blank.stride()
        )

    materialise(model, spec.init, device=device, dtype=torch.float32, seed=seed, layers=layers(spec.graph), hold=hold)


def share(like: DTensor, value: Tensor) -> Tensor:
    """The rows of a whole value that this process has."""
    parts = value.chunk(like.device_mesh.size())
    rank = like.device_mesh.get_local_rank()
    return parts[rank] if rank < len(parts) else value[:0]


def put(held: Tensor, value: Tensor) -> None:
    """Puts a whole value into a tensor, of which this process may have a share."""
    if isinstance(held, DTensor):
        held.to_local().copy_(share(held, value))
    else:
        held.copy_(value)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor; all processes must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def hand_over(tensors: Iterable[Tensor]) -> None:
    """Gives the share of this process to one that asks for tensors in this order."""
    for tensor in tensors:
        whole(tensor)
