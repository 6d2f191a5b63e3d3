"""From a typed graph to modules: each node's module, bodies, weight matrices, and blocks that are traced once."""

from __future__ import annotations

import keyword
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, fx, nn

from archspec.errors import Problem, SpecError
from archspec.graph import Graph, Node, Ref
from archspec.kind import Matrix
from archspec.streams import Stream
from compiler.registry import MODULES, Keeper
from compiler.tokens import Tokens

LOSSES: ContextVar[list[Tensor] | None] = ContextVar("losses", default=None)
"""Where modules put auxiliary losses while a training form is run or traced; None outside."""


@contextmanager
def collecting(losses: list[Tensor] | None):  # type: ignore[no-untyped-def]
    """Auxiliary losses of what runs inside go to this list; nowhere when None."""
    token = LOSSES.set(losses)
    try:
        yield losses
    finally:
        LOSSES.reset(token)


class Make:
    """Builds modules on the meta device; handed to every module's constructor.

    Args:
        node: the node that is being built.
        blocks: bodies that were traced already.
    """

    def __init__(self, node: Node, blocks: Blocks) -> None:
        self.node, self.blocks = node, blocks

    @property
    def stream(self) -> Stream:
        """The type of the node's first input."""
        return self.node.types[0]

    def body(self, slot: str) -> nn.Module:
        """The body in a slot, as part of this module."""
        return self.blocks.body(self.node.bodies[slot])

    def block(self, slot: str) -> nn.Module:
        """The body in a slot, traced on its own."""
        return self.blocks.block(self.node.bodies[slot])

    def has(self, slot: str) -> bool:
        return slot in self.node.bodies

    def slots(self, prefix: str) -> list[str]:
        """The slots ``prefix.0``, ``prefix.1``, …"""
        return [slot for slot in self.node.bodies if slot.startswith(prefix + ".")]

    def plain(self, *roles: str) -> bool:
        """Whether these weight matrices are plain ones that can be one product."""
        matrices = [self.node.matrices[role] for role in roles]
        return all(plan is None for _, plan in matrices) and len({matrix.bias for matrix, _ in matrices}) == 1

    def linear(self, role: str) -> nn.Module:
        """The weight matrix of a role."""
        matrix, plan = self.node.matrices[role]
        if plan is None:
            return plain_linear(matrix)
        return MODULES[type(plan.kind)](plan.kind, plan.types[0], matrix)

    def fused(self, *roles: str) -> nn.Linear:
        """Several plain matrices of one input as one product; split its output by their widths."""
        matrices = [self.node.matrices[role][0] for role in roles]
        first = matrices[0]
        linear = plain_linear(Matrix(first.inputs, sum(m.outputs for m in matrices), first.bias, first.init))
        linear.parts = [m.outputs for m in matrices]  # type: ignore[assignment]
        linear.roles = roles  # type: ignore[assignment]
        return linear


def plain_linear(matrix: Matrix) -> nn.Linear:
    """An uninitialised linear map on the meta device."""
    linear = nn.Linear.__new__(nn.Linear)
    nn.Module.__init__(linear)
    linear.in_features, linear.out_features = matrix.inputs, matrix.outputs
    linear.weight = weight(matrix.outputs, matrix.inputs)
    linear.register_parameter("bias", weight(matrix.outputs) if matrix.bias else None)
    linear.writes = matrix.init == "out"  # type: ignore[assignment]
    return linear


def weight(*shape: int) -> nn.Parameter:
    """An uninitialised parameter on the meta device."""
    return nn.Parameter(torch.empty(shape, device="meta"))


def project(linear: nn.Module, features: Tensor, tokens: Tokens) -> Tensor:
    """A weight matrix applied to features of tokens, which may carry the label that chooses among its copies."""
    label = getattr(linear, "label", None)
    out: Tensor = linear(features) if label is None else linear(features, tokens.labels[label])
    return out


_TAKEN = frozenset(dir(fx.GraphModule(nn.Module(), fx.Graph()))) | {
    "spec",
    "signature",
    "forms",
    "codes",
    "entries",
    "beside",
}


def attribute(name: str) -> str:
    """A node's name as that of its module, which may not hide what a module has anyway."""
    return f"{name}_" if name in _TAKEN or keyword.iskeyword(name) else name


class Body(nn.Module):
    """Runs the nodes of a graph; its children bear the nodes' names."""

    def __init__(self, graph: Graph, blocks: Blocks) -> None:
        super().__init__()
        self.spec = graph
        for node in graph.nodes:
            if node.home == node.name:
                self.add_module(attribute(node.name), blocks.node(node))
            if node.shares is not None and node.home == node.name:
                tie(self._modules[attribute(node.name)], self._modules[attribute(node.shares)])

    def run(self, inputs: Sequence[Tokens], outer: Mapping[str, Tokens]) -> dict[str, Tokens]:
        """All outputs by name."""
        graph = self.spec
        values = {(name, ""): value for name, value in zip(graph.inputs, inputs, strict=False)}
        values |= {(name, ""): outer[name] for name in graph.outer}
        training = LOSSES.get() is not None
        self.compute(values, [node for node in graph.nodes if training or node.when != "training"], inputs)
        return {
            name: read(values, ref) for name, ref in graph.outputs.items() if name not in graph.training or training
        }

    def compute(self, values: dict[tuple[str, str], Tokens], nodes: Sequence[Node], inputs: Sequence[Tokens]) -> None:
        """Adds the outputs of some nodes to the values that are known."""
        for node in nodes:
            given = [read(values, ref) for ref in node.inputs]
            if not given and inputs and node.kind.arity == (0, 0):
                given = [inputs[0]]  # learned tokens: as many samples as there are
            module = self._modules[attribute(node.home)]
            assert module is not None
            around = {name: read(values, ref) for name, ref in node.outer.items()}
            for port, value in run_node(module, node, given, around).items():
                values[node.name, port] = value


def run_node(module: nn.Module, node: Node, given: Sequence[Tokens], outer: Mapping[str, Tokens]) -> dict[str, Tokens]:
    """A node's outputs by port; plain tensors take over what the tokens of the first input carry."""
    found = module(*given, outer=outer) if node.bodies or node.outer else module(*given)
    result = {}
    for port, value in (found if isinstance(found, dict) else {"": found}).items():
        if not isinstance(value, Tokens):
            stream = node.outputs[port]
            value = given[0].give(value, stream) if given else Tokens(value, stream)
        result[port] = value
    return result


def tie(module: Any, source: Any, names: list[str] | None = None) -> None:
    """Makes a module use another's weights: all that both have and that are nobody's own, or those of some nodes."""
    if module is source or names == []:
        return
    mine = dict(module.named_parameters(remove_duplicate=False))
    for name, parameter in source.named_parameters(remove_duplicate=False):
        if names is not None and name.split(".")[0] not in names:
            continue
        if name in mine and mine[name].shape == parameter.shape:
            path, _, last = name.rpartition(".")
            part = module.get_submodule(path)
            if not getattr(part, "own", False):
                part._parameters[last] = parameter


def read(values: dict[tuple[str, str], Tokens], ref: Ref) -> Tokens:
    """The tokens that a reference means."""
    value = values[ref.node, ref.port]
    if not ref.span:
        return value
    span = value.stream.span(ref.span)
    assert span is not None
    return value.span(ref.span, value.stream.on(span))


def call(body: nn.Module, *inputs: Tokens, outer: Mapping[str, Tokens]) -> dict[str, Tokens]:
    """The outputs of a body by name: run node by node, or as the traced block that it is."""
    if isinstance(body, Body):
        return body.run(inputs, outer)
    block: Any = getattr(body, "signature", None)
    if block is not None:
        return block.call(body, inputs, outer)  # type: ignore[no-any-return]
    graph: Graph = body.spec  # type: ignore[assignment]
    node = graph.nodes[0]
    values = {(name, ""): value for name, value in zip(graph.inputs, inputs, strict=False)}
    values |= {(name, ""): outer[name] for name in graph.outer}
    around = {name: read(values, ref) for name, ref in node.outer.items()}
    ports = run_node(body, node, inputs[: len(node.inputs)], around)
    return {next(iter(graph.outputs)): ports[""]}


def main(body: nn.Module, *inputs: Tokens, outer: Mapping[str, Tokens]) -> Tokens:
    """The main output of a body."""
    return next(iter(call(body, *inputs, outer=outer).values()))


class Blocks:
    """Builds nodes and bodies; traces each distinct body once."""

    def __init__(self) -> None:
        self.templates: dict[str, Any] = {}

    def node(self, node: Node) -> nn.Module:
        """The module of a node, on the meta device."""
        module = MODULES.get(type(node.kind))
        if module is None:
            cause = f"no module computes the kind {node.kind.name_}"
            raise SpecError(
                Problem(cause, "the file that defines the kind ties one to it with @builds", node.path, node.raw.mark)
            )
        made = module(node.kind, Make(node, self))
        if not any(stream.causal for stream in (*node.types, *node.outputs.values(), *node.outer_types.values())):
            for part in made.modules():
                if isinstance(part, Keeper):
                    part.goes_on = False
        return made

    def body(self, graph: Graph) -> nn.Module:
        """A body's module; that of its node where it is no more than one."""
        node = graph.single
        if node is None:
            return Body(graph, self)
        module = self.node(node)
        module.spec = graph  # type: ignore[assignment]
        return module

    def block(self, graph: Graph) -> nn.Module:
        """A body traced on its own; bodies of one structure share the traced code."""
        from compiler.trace import block

        return block(graph, self)
