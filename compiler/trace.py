"""Tracing: a body becomes an ``fx.GraphModule`` over plain tensors, each distinct body once.

Copies of a block share its class, and so its code and its graph; parameters, rates and initialisation are their own.
Modules that read ``self.training``, or whose work depends on the data, stay calls (`compiler.registry.Leaf`), so that
switching between ``train()`` and ``eval()`` after tracing does what it does for a hand-written module. A body that
computes more in training (training-only nodes, auxiliary losses) has two graphs over the same weights.
"""

from __future__ import annotations

import copy
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from archspec.graph import Graph
from archspec.kinds.interface import spoken_for
from archspec.streams import Stream
from compiler.build import LOSSES, Blocks, Body, call, collecting
from compiler.registry import Leaf
from compiler.tokens import Tokens, pack, suffixes


class Signature:
    """Which tensors a traced block takes and gives.

    ``outputs`` tells for each output where each of its tensors comes from: an input, by number, or what the block
    returns, by ``~number``.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.names: list[str] = []
        self.outputs: dict[bool, list[tuple[str, Stream, list[int]]]] = {}
        self.losses: dict[bool, bool] = {}
        taken: set[str] = set()
        for name, stream in graph.inputs.items():
            for suffix in suffixes(stream):
                word = re.sub(r"\W", "_", name + suffix)
                while word in taken or spoken_for(word):
                    word += "_"
                taken.add(word)
                self.names.append(word)

    def unpack(self, tensors: Sequence[Any]) -> tuple[list[Tokens], dict[str, Tokens]]:
        """The block's inputs, and what it reads from outside by name."""
        values, start = {}, 0
        for name, stream in self.graph.inputs.items():
            stop = start + len(suffixes(stream))
            values[name] = pack(stream, list(tensors[start:stop]))
            start = stop
        names = list(values)
        outer = {name: values[name] for name in names[self.graph.given :]}
        return [values[name] for name in names[: self.graph.given]], outer

    def call(self, block: nn.Module, inputs: Sequence[Tokens], outer: Mapping[str, Tokens]) -> dict[str, Tokens]:
        """Calls the traced block on tokens."""
        tokens = [*inputs[: self.graph.given], *(outer[name] for name in self.graph.outer)]
        tensors = [tensor for token in tokens for _, tensor in token.tensors()]
        assert len(tensors) == len(self.names), self.names
        training = LOSSES.get() is not None and False in self.outputs
        given = _called(block, tensors)
        kept = self.outputs[training] if training in self.outputs else self.outputs[True]
        returned = 1 + max((~place for _, _, places in kept for place in places if place < 0), default=-1)
        losses = self.losses.get(training, False)
        results = [given] if returned + losses == 1 else [given[number] for number in range(returned + losses)]
        if losses:
            collected = LOSSES.get()
            assert collected is not None
            collected.append(results[-1])
        return {
            name: pack(stream, [tensors[place] if place >= 0 else results[~place] for place in places])
            for name, stream, places in kept
        }


def _called(block: nn.Module, tensors: list[Any]) -> Any:
    """Calls a traced block, or writes the call into the graph that is being traced around it."""
    tracer = getattr(tensors[0], "tracer", None) if tensors else None
    if tracer is None:
        return block(*tensors)
    path = tracer.path_of_module(block)
    return fx.Proxy(tracer.graph.create_node("call_module", path, tuple(tensor.node for tensor in tensors), {}), tracer)


class _Tracer(fx.Tracer):
    """Traces a body whose inputs are tokens, as a function of their tensors."""

    def __init__(self, names: Sequence[str], run: Any) -> None:
        super().__init__(autowrap_modules=())
        self.names, self.run = names, run
        self.parameters: dict[int, str] | None = None

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """A parameter as a node of the graph; fx looks through all of them each time."""
        if not isinstance(attr_val, nn.Parameter):
            return attr_val
        if self.parameters is None:
            self.parameters = {id(parameter): name for name, parameter in self.root.named_parameters()}
        name = self.parameters.get(id(attr_val))
        if name is None:
            return attr_val
        if name not in parameter_proxy_cache:
            parameter_proxy_cache[name] = self.create_proxy("get_attr", name, (), {})
        return parameter_proxy_cache[name]

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> tuple[Any, list[Any]]:
        proxies = [self.create_proxy("placeholder", name, (), {}) for name in self.names]
        return self.run, proxies

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (Leaf, fx.GraphModule)) or m.__module__.startswith("torch.nn")


class Traced(fx.GraphModule):
    """A traced body. ``graph`` and ``code`` are those of the mode that it is in, if training has a graph of its own."""

    signature: Signature
    forms: dict[bool, fx.Graph] | None = None
    codes: dict[bool, str]
    closed = False
    """Set while a graph around traced bodies is traced: a trace looks at every module inside its root, many times."""

    def named_modules(self, memo: Any = None, prefix: str = "", remove_duplicate: bool = True) -> Any:
        if not Traced.closed:
            yield from super().named_modules(memo, prefix, remove_duplicate)
        elif memo is None or self not in memo:
            if memo is not None:
                memo.add(self)
            yield prefix, self

    def named_children(self) -> Any:
        return iter(()) if Traced.closed else super().named_children()

    def train(self, mode: bool = True) -> Traced:
        super().train(mode)
        if self.forms is not None:
            self._graph, self._code = self.forms[mode], self.codes[mode]
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Traced:
        """A copy with a graph, code and weights of its own; hooks are left behind."""
        holder = nn.Module()
        for name in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
            holder.__dict__[name] = copy.deepcopy(self.__dict__[name], memo)
        graphs = {mode: copy.deepcopy(graph) for mode, graph in (self.forms or {True: self.graph}).items()}
        name = type(self).__name__
        copied = Traced(holder, graphs[True], name)
        if self.forms:
            _switch(copied, Traced(holder, graphs[False], name), graphs)
        own = {
            name: value for name, value in self.__dict__.items() if name in ("signature", "spec", "beside")
        } | _records(self)
        copied.__dict__.update(holder.__dict__ | own)
        if "entries" in self.__dict__:
            entries = self.__dict__["entries"]
            copied.entries = {name: Traced(copied, copy.deepcopy(part.graph), name) for name, part in entries.items()}
        copied.training = self.training
        if self.forms:
            copied._graph, copied._code = graphs[self.training], copied.codes[self.training]
        return copied

    def _recompile_submodules(self) -> list[Any]:
        return []  # blocks inside have their own code; editing this graph does not change it


@contextmanager
def _closed() -> Iterator[None]:
    """Inside, a traced body shows nothing of what is in it."""
    Traced.closed = True
    try:
        yield
    finally:
        Traced.closed = False


def block(graph: Graph, blocks: Blocks) -> nn.Module:
    """A body as a traced block: the trace of its structure, with weights of its own."""
    key = graph.digest("layout")
    template = blocks.templates.get(key)
    if template is None:
        root = _root(graph, blocks)
        traced = trace(root, Signature(graph), "Block", graph.differs_in_training)
        blocks.templates[key] = (graph.digest("full"), traced)
        return traced
    full, traced = template
    if full == graph.digest("full"):
        return clone(traced)
    return adopt(traced, _root(graph, blocks), graph)


def _root(graph: Graph, blocks: Blocks) -> nn.Module:
    return Body(graph, blocks)


def trace(root: nn.Module, signature: Signature, name: str, two_forms: bool, entry: Any = None) -> Traced:
    """Traces a body.

    Args:
        root: a `Body`.
        signature: filled with the outputs.
        two_forms: whether training has a graph of its own.
        entry: replaces how tensors become tokens, and tokens results.
    """
    graphs = {mode: traced_graph(root, signature, mode, entry) for mode in ([True, False] if two_forms else [True])}
    traced = Traced(root, graphs[True], name)
    if two_forms:
        _switch(traced, Traced(root, graphs[False], name), graphs)
    with _closed():  # fx copies parameters, not what they start as; blocks inside have done so
        parts = dict(nn.Module.named_modules(traced))
        for path, module in root.named_modules():
            if path in parts:
                parts[path].__dict__.update(_records(module))
    traced.signature = signature
    return traced


def traced_graph(root: nn.Module, signature: Signature, training: bool, entry: Any) -> fx.Graph:
    """The graph of a body in one of its forms."""

    def run(*proxies: Any) -> Any:
        losses: list[Tensor] = []
        with collecting(losses if training else None):
            if entry is not None:
                return entry(root, proxies, losses)
            inputs, outer = signature.unpack(proxies)
            results: list[Any] = []
            outputs = []
            for name, tokens in call(root, *inputs, outer=outer).items():
                places = []
                for _, tensor in tokens.tensors():
                    place = next((n for n, proxy in enumerate(proxies) if proxy is tensor), None)
                    if place is None:
                        results.append(tensor)
                        place = ~(len(results) - 1)
                    places.append(place)
                outputs.append((name, tokens.stream, places))
            signature.outputs[training] = outputs
            signature.losses[training] = bool(losses)
            if losses:
                results.append(_sum(losses))
            return results[0] if len(results) == 1 else tuple(results)

    with _closed():
        graph = _Tracer(signature.names, run).trace(root)
    graph._tracer_cls = fx.Tracer
    return graph


def _sum(losses: list[Any]) -> Any:
    total = losses[0]
    for loss in losses[1:]:
        total = total + loss
    return total


def _switch(traced: Traced, inference: Traced, graphs: dict[bool, fx.Graph]) -> None:
    """Gives a traced body its second graph."""
    cls = type(traced)
    forwards = {True: cls.forward, False: type(inference).forward}

    def forward(self: nn.Module, *tensors: Any, **named: Any) -> Any:
        return forwards[self.training](self, *tensors, **named)

    cls.forward = forward  # type: ignore[method-assign]
    traced.forms, traced.codes = graphs, {True: traced.code, False: inference.code}


_HOOKS = tuple(name for name, value in nn.Module().__dict__.items() if isinstance(value, OrderedDict))


def clone(module: nn.Module, made: dict[int, Any] | None = None) -> Any:
    """A copy that shares class, graph and tables, and owns uninitialised parameters; ties inside stay ties."""
    made = {} if made is None else made
    copied = object.__new__(type(module))
    state = module.__dict__
    own = copied.__dict__
    own.update(state)
    for name in _HOOKS:
        own[name] = OrderedDict()
    own["_non_persistent_buffers_set"] = set(state["_non_persistent_buffers_set"])
    tables = state["_non_persistent_buffers_set"]  # these follow from the spec; others are the copy's own state
    own["_buffers"] = {
        name: old if old is None or name in tables else torch.empty_like(old) for name, old in state["_buffers"].items()
    }
    own["_parameters"] = {name: None if old is None else _once(made, old) for name, old in state["_parameters"].items()}
    own["_modules"] = {name: None if child is None else clone(child, made) for name, child in state["_modules"].items()}
    return copied


def _once(made: dict[int, Any], old: nn.Parameter) -> nn.Parameter:
    """The copy of a parameter; the same one wherever the original stands."""
    if id(old) not in made:
        made[id(old)] = nn.Parameter(torch.empty(old.shape, dtype=old.dtype, device="meta"))
    return made[id(old)]  # type: ignore[no-any-return]


def adopt(traced: Traced, root: nn.Module, graph: Graph) -> Any:
    """A body with other rates or initialisation under the traced code of the same structure."""
    adopted = object.__new__(type(traced))
    adopted.__dict__.update(traced.__dict__)
    fresh = nn.Module()
    for key, value in fresh.__dict__.items():
        adopted.__dict__[key] = value
    for node in traced.graph.nodes:
        if node.op in ("call_module", "get_attr"):
            _take(root, adopted, node.target.split("."))
    return adopted


def _records(module: nn.Module) -> dict[str, Any]:
    """What a module says of its parameters: how they start, which matrices they are made of, whose they are."""
    names = ("initial", "writes", "parts", "roles", "own")
    return {name: module.__dict__[name] for name in names if name in module.__dict__}


def _take(source: nn.Module, target: nn.Module, path: list[str]) -> None:
    for part in path[:-1]:
        source = getattr(source, part)
        known = target._modules.get(part)
        if known is source:
            return  # taken whole already
        if known is None:
            known = nn.Module()
            known.__dict__.update(_records(source))
            target.add_module(part, known)
        target = known
    name = path[-1]
    if name in source._modules:
        target.add_module(name, source._modules[name])
    else:
        setattr(target, name, getattr(source, name))
