"""Models of specs, ready to be looked at: inputs that fit, weights that hide nothing, and the same model untraced."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from archspec.graph import Graph, Node
from archspec.spec import Spec
from archspec.streams import Size, Stream
from compiler.build import Blocks, Body, collecting
from compiler.initialise import materialise
from compiler.model import _entry, _tie
from compiler.modules.attend import Attend
from compiler.modules.block_sparse_attention import BlockSparseAttend
from compiler.modules.categorical import Choosing
from compiler.modules.regularise import SampleDrop
from compiler.modules.router import Choose, Draw, Jitter
from compiler.registry import Leaf
from compiler.trace import Signature

Outputs = dict[str, Tensor]
Lengths = int | dict[str, int]


def inputs(spec: Spec, *, batch: int, length: Lengths, seed: int = 0, device: str = "cpu") -> list[Tensor]:
    """Random tensors for a model's inputs, in the order of its forward; every sample has its own, some are padded."""
    made = []
    for sample in range(seed, seed + batch):
        generator = torch.Generator().manual_seed(sample)
        tensors = [_tensor(stream, length, generator) for stream in spec.graph.inputs.values()]
        for name, words in spec.interface.carried().items():
            tokens = size_of(spec.graph.inputs[name].count, length)
            for word in words:
                if word == "valid":
                    tensors.append(torch.arange(tokens)[None] < tokens - sample % 3)
                else:
                    values = spec.interface.labels[word]
                    tensors.append(torch.randint(0, values, (1, tokens), generator=generator))
        made.append(tensors)
    return [torch.cat(parts).to(device) for parts in zip(*made, strict=True)]


def _tensor(stream: Stream, length: Lengths, generator: torch.Generator) -> Tensor:
    sizes = [size_of(axis.size, length) for span in stream.spans for axis in span.axes]
    if stream.content == "ids":
        return torch.randint(0, stream.width, (1, *sizes), generator=generator)
    return torch.randn(1, *sizes, stream.width, generator=generator)


def size_of(size: Size, length: Lengths) -> int:
    """A number of tokens, given each length that is known only at run time, or one for all of them."""
    if isinstance(size, int):
        return size
    numbers = re.sub(r"[a-z_]+", lambda name: str(length if isinstance(length, int) else length[name[0]]), size)
    return max(1, math.floor(eval(numbers)))  # arithmetic of our own types


def runs(model: nn.Module, given: list[Tensor]) -> Outputs:
    """All outputs of a model by name."""
    found = model(*given)
    return found if isinstance(found, dict) else {next(iter(model.spec.graph.outputs)): found}


@torch.no_grad()
def perturbed(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model with noise on every parameter and stored buffer, so that no gate is closed and no gain is one."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict(keep_vars=True).items():
        if tensor.is_floating_point():
            tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=0.2)
        if name.endswith("running_var"):
            tensor.abs_()
    return model


RATES = (
    (nn.Dropout, "p"),
    (BlockSparseAttend, "training_only"),
    (Attend, "subsample"),
    (SampleDrop, "rate"),
    (Leaf, "dropout"),
    (Jitter, "rate"),
    (Choose, "noise"),
    (Draw, "noise"),
    (Choosing, "noise"),
)


def rates(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Where a model keeps the rates of what is random in training."""
    for module in model.modules():
        for kind, name in RATES:
            if isinstance(module, kind) and getattr(module, name, 0.0):
                yield module, name


def untraced(spec: Spec, model: nn.Module) -> Any:
    """The same modules run node by node, with the model's weights: a function of a mode and the inputs."""
    root = Body(spec.graph, _Untraced())
    _tie(root, spec.graph)
    materialise(root, spec.init, device="cpu", dtype=torch.float32, seed=0, layers=1)
    missing, unexpected = root.load_state_dict(model.state_dict(), strict=False)
    known = dict(root.named_parameters(remove_duplicate=False))
    loaded = {id(known[name]) for name in known.keys() - set(missing)}
    assert not unexpected and all(id(known[name]) in loaded for name in missing)  # tied ones have one name in a trace
    signature, entry = _entry(spec)

    def run(given: list[Tensor], *, training: bool) -> Outputs:
        root.train(training)
        losses: list[Tensor] = []
        with collecting(losses if training and spec.graph.differs_in_training else None):
            found = entry(root, given, losses)
        return found if isinstance(found, dict) else {next(iter(spec.graph.outputs)): found}

    return run


class _Untraced(Blocks):
    def block(self, graph: Graph) -> nn.Module:
        body: Any = Body(graph, self)
        body.signature = Signature(graph)
        return body


def nodes(graph: Graph) -> Iterator[Node]:
    """All nodes of a graph, those inside others too."""
    for node in graph.nodes:
        yield node
        for body in node.bodies.values():
            yield from nodes(body)
        for _, plan in node.matrices.values():
            if plan is not None:
                yield plan
