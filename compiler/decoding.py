"""Decoding: a causal model reads a sequence piece by piece, and goes on from what its blocks kept.

What is kept is the blocks' own business (`compiler.registry.Keeper`): keys and values of all tokens or of a window, a
latent of each token, a recurrent state, the tail of a convolution. A model decodes as it was compiled; one with inputs
that are not causal in two parts, what is read once and what is read for each piece.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from archspec.errors import Problem, SpecError
from archspec.graph import Graph, Node
from archspec.kinds.threshold import share
from archspec.spec import Spec
from archspec.streams import Stream
from compiler.registry import Keeper
from compiler.split import split


class Past:
    """What leaves kept of the sequences that they go on from, and where in these they are.

    Args:
        leaves: those that go on.
        length: tokens that are made room for at once; more may come.
        start: ``[batch]`` integers, the padding before each sequence.

    Attributes:
        position: tokens before those of the call that runs.
    """

    def __init__(self, leaves: Iterable[Keeper], *, length: int = 0, start: Tensor | None = None) -> None:
        self.leaves, self.length = list(leaves), length
        self.start = start if start is not None and bool(start.any()) else None
        self.most_padding = 0 if self.start is None else int(self.start.max())
        self.position = 0
        self._kept: dict[int, list[dict[str, Any]]] = {id(leaf): [] for leaf in self.leaves}
        self._calls: dict[int, int] = {}
        self._shared: dict[Hashable, Any] = {}

    @contextmanager
    def call(self) -> Iterator[None]:
        """Inside, the leaves go on; one call of the model."""
        self._calls.clear()
        self._shared.clear()
        try:
            for leaf in self.leaves:
                leaf.decoding = self
            yield
        finally:
            for leaf in self.leaves:
                leaf.decoding = None

    def tensors(self) -> Iterator[Tensor]:
        """All that was kept."""
        for times in self._kept.values():
            for kept in times:
                yield from (value for value in kept.values() if isinstance(value, Tensor))

    def kept(self, leaf: Keeper) -> dict[str, Any]:
        """What a leaf kept, to be read and changed; one that runs several times in a pass has one for each time."""
        number = self._calls.get(id(leaf), 0)
        self._calls[id(leaf)] = number + 1
        all_ = self._kept[id(leaf)]
        if number == len(all_):
            all_.append({})
        return all_[number]

    def shared(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What leaves that ask under one key share in this call, made by the first of them."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    def places(self, count: int, device: torch.device | None = None) -> Tensor:
        """``[1 or batch, count]``: where the tokens of this call are in their sequences; 0 for padding."""

        def make() -> Tensor:
            places = torch.arange(self.position, self.position + count, device=device)[None]
            return places if self.start is None else (places - self.start[:, None]).clamp(min=0)

        found: Tensor = self.shared(("places", count), make)
        return found

    def real(self, count: int) -> Tensor | None:
        """``[batch, count]``: which tokens of this call are no padding; None where all are."""
        if self.start is None or self.position >= self.most_padding:
            return None
        return torch.arange(self.position, self.position + count, device=self.start.device) >= self.start[:, None]

    def append(self, kept: dict[str, Any], name: str, x: Tensor, dim: int) -> Tensor:
        """All tokens up to those of this call ``x``, along ``dim``; a view that is valid until the next call."""
        end = self.position + x.shape[dim]
        buffer = kept.get(name)
        if buffer is None or buffer.shape[dim] < end:
            shape = list(x.shape)
            shape[dim] = max(self.length, end if buffer is None else end + end // 2)
            grown = x.new_empty(shape)
            if buffer is not None:
                grown.narrow(dim, 0, self.position).copy_(buffer.narrow(dim, 0, self.position))
            buffer = kept[name] = grown
        buffer.narrow(dim, self.position, x.shape[dim]).copy_(x)
        return buffer.narrow(dim, 0, end)


class Decoding(Past):
    """One decoding of a batch of sequences.

    Call it with the next tokens ``[batch, count]`` for what the model gives for them, ``[batch, count, vocabulary]``.
    A model that reads several ids for a token is given the first input's, and the others' by their names. Sequences of
    unlike lengths are padded on the left.

    Args:
        model: a compiled model with a causal input.
        length, start: as of `Past`.
        source: tensors of the inputs that are read once, by name, for a model that has such.

    Errors:
        SpecError: something in the model cannot go on from what it kept; it is named.
        ValueError: more tokens than the model reads, or an input that is missing.
    """

    def __init__(
        self, model: fx.GraphModule, *, length: int = 0, start: Tensor | None = None,
        source: Mapping[str, Tensor] | None = None,
    ) -> None:  # fmt: skip
        spec: Any = model.spec
        problems = list(refusals(spec))
        if problems:
            raise SpecError(*problems)
        self.model = model
        self.most = next(stream.most for stream in spec.graph.inputs.values() if stream.causal)
        self._step: Any = model
        self._names, others = _names(spec, causal=True), _names(spec, causal=False)
        self._valid = {words["valid"] for words in spec.interface.carried().values() if "valid" in words}
        self._known: tuple[Any, ...] = ()
        if others:
            once, self._step = split(model, self._names)
            with torch.no_grad():
                self._known = by_head(once(*((source or {})[name] for name in others)))
        super().__init__(keepers(self._step), length=length, start=start)

    @torch.no_grad()
    def __call__(self, tokens: Tensor, **beside: Tensor) -> Any:
        """What the model gives for the next tokens ``[batch, count]``; ``beside`` are their labels and what the other
        causal inputs say of them, ``[batch, count]``, by name.
        """
        count = tokens.shape[1]
        if self.most is not None and self.position + count > self.most:
            raise ValueError(f"{self.position + count} tokens; this model reads at most {self.most}")
        given = []
        for name in self._names:
            if name in beside:
                given.append(beside[name])
            elif name == self._names[0]:
                given.append(tokens)
            elif name in self._valid:
                real = self.real(count)
                given.append(
                    torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device) if real is None else real
                )
            else:
                raise ValueError(f"{name} of the next tokens is missing")
        with self.call():
            out = self._step(*given, *self._known)
        self.position += count
        return out


def keepers(module: nn.Module) -> Iterator[Keeper]:
    """The leaves of a module that go on from what they kept."""
    return (part for part in module.modules() if isinstance(part, Keeper) and part.goes_on)


def by_head(known: Iterable[Any]) -> tuple[Any, ...]:
    """Tokens ``[batch, tokens, heads, width]`` laid out head by head, as attention reads them for every token."""
    return tuple(
        value.transpose(1, 2).contiguous().transpose(1, 2) if isinstance(value, Tensor) and value.ndim == 4 else value
        for value in known
    )


def refusals(spec: Spec) -> Iterator[Problem]:
    """Why a model cannot decode: its interface, or kinds that cannot go on from what they kept."""
    causal = [stream for stream in spec.graph.inputs.values() if stream.causal]
    if len({stream.axes for stream in causal}) != 1 or len(causal[0].axes) != 1 or len(causal[0].spans) != 1:
        cause = "decoding needs causal inputs along one axis"
        yield Problem(cause, "interface: causal_lm or seq2seq_lm", "interface")
        return
    seen: set[int] = set()

    def search(graph: Graph) -> Iterator[Problem]:
        if id(graph) in seen:
            return
        seen.add(id(graph))
        for node in graph.nodes:
            if node.when == "training":
                continue
            cause = _refusal(node)
            if cause is not None:
                hint = "the model can still be run on whole sequences"
                yield Problem(f"{node.kind.name_} cannot be decoded token by token: {cause}", hint, node.path,
                              node.raw.mark)  # fmt: skip
                continue
            for body in node.bodies.values():
                yield from search(body)

    yield from search(spec.graph)


def _refusal(node: Node) -> str | None:
    """Why a node cannot go on from what it kept, or None."""
    streams: list[Stream] = [*node.types, *node.outputs.values()]
    if not any(stream.causal for stream in streams):
        return None
    if not (node.kind.pointwise or node.kind.incremental):
        return "it does not say what it keeps"
    if any(share(x) is not None for x in node.types) and not (node.kind.pointwise or node.kind.among):
        return "it does not go on from tokens that were chosen"
    named = {field: node.outer_types[node.streams[field]] for field in ("score_bias", "mask") if field in node.streams}
    pairs = [field for field, stream in named.items() if len(stream.axes) == 2 and not stream.causal]
    pairs += ["scores"] * ("scores" in node.reads)
    return f"{pairs[0]} are of all pairs of tokens" if pairs else None


def _names(spec: Spec, *, causal: bool) -> list[str]:
    """Names of the tensors of the causal inputs, or of those that are read once, in the order of the model's."""
    carried = spec.interface.carried()
    inputs = [name for name, stream in spec.graph.inputs.items() if stream.causal == causal]
    return [*inputs, *(word for name in inputs for word in carried.get(name, {}).values())]
