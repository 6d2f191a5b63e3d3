"""What a measurement runs: a compiled model's prefill, one decoded token after a context, or a training step."""

from __future__ import annotations

import gc
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

import compiler
from archspec.errors import Problem, SpecError
from archspec.spec import Spec
from archspec.streams import Stream
from compiler.decoding import Decoding
from search.cost.price import known_context, resolve_lengths
from search.cost.setting import DTYPES, Phase
from search.losses import LOSSES

CHUNK = 1024  # tokens of a context that are read at once


@dataclass(frozen=True)
class Workload:
    """One thing to measure.

    Attributes:
        length: tokens of a prefill or a step where the interface leaves them open; of a decoded token, those before it.
    """

    spec: Spec
    phase: Phase
    batch: int = 1
    length: int | None = None
    dtype: str = "float32"

    def build(self, device: str = "cpu") -> Any:
        """The compiled model on a device."""
        return compiler.compile(self.spec, device=device, dtype=DTYPES[self.dtype])

    def ready(self, device: str = "cpu", *, compiled: bool = False, model: Any = None) -> Callable[[], Any]:
        """What runs it once, its model built and its inputs in place.

        Args:
            compiled: by `torch.compile`.
            model: one that was built before.

        Errors:
            SpecError: the model cannot decode, or its interface has no loss.
        """
        spec, dtype = self.spec, DTYPES[self.dtype]
        model = model or self.build(device)
        if self.phase == "decode":
            return self._decode(model.eval(), device, compiled)
        lengths = resolve_lengths(spec, self.length)
        given = random_inputs(spec, batch=self.batch, lengths=lengths, dtype=dtype, device=device)
        run = torch.compile(model) if compiled else model
        if self.phase == "prefill":
            model.eval()
            return torch.no_grad()(lambda: run(*given))
        return self._step(model.train(), run, given)

    def _decode(self, model: Any, device: str, compiled: bool) -> Callable[[], Any]:
        spec = self.spec
        context = known_context(spec, resolve_lengths(spec, None), self.length)
        source = None
        causal = {name: stream for name, stream in spec.graph.inputs.items() if stream.causal}
        if len(causal) < len(spec.graph.inputs):
            lengths = resolve_lengths(spec, None)
            dtype = DTYPES[self.dtype]
            once = {name: stream for name, stream in spec.graph.inputs.items() if not stream.causal}
            source = {n: _tensor(s, self.batch, lengths, dtype, device) for n, s in once.items()}
        decoding = Decoding(model, length=context + 1, source=source)
        first, *others = (
            torch.randint(0, stream.width, (self.batch, context + 1), device=device) for stream in causal.values()
        )
        beside = dict(zip(list(causal)[1:], others, strict=True))

        def read(at: slice) -> Any:
            return decoding(first[:, at], **{name: tokens[:, at] for name, tokens in beside.items()})

        for start in range(0, context, CHUNK):
            read(slice(start, min(start + CHUNK, context)))
        if compiled:
            decoding._step = torch.compile(decoding._step)

        def run() -> Any:
            decoding.position = context
            return read(slice(context, context + 1))

        return run

    def _step(self, model: Any, run: Any, given: list[Tensor]) -> Callable[[], Any]:
        interface = self.spec.interface.name_
        if interface not in LOSSES:
            raise SpecError(Problem(f"{interface} has no loss to be trained with", None, "interface"))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        loss = LOSSES[interface]
        with torch.no_grad():
            first = _main(model(*given))
        targets = torch.randint(0, first.shape[-1], first.shape[:-1], device=first.device)
        del first

        def step() -> Any:
            out = run(*given)
            total = loss(_main(out), targets)
            if isinstance(out, dict) and "loss" in out:
                total = total + out["loss"]
            total.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return step


def _main(out: Any) -> Any:
    return next(iter(out.values())) if isinstance(out, dict) else out


def random_inputs(spec: Spec, *, batch: int, lengths: dict[str, int], dtype: torch.dtype, device: str) -> list[Tensor]:
    """Random tensors for a model's inputs, in the order of its forward; no token is padding."""
    made = [_tensor(stream, batch, lengths, dtype, device) for stream in spec.graph.inputs.values()]
    for name, words in spec.interface.carried().items():
        tokens = prod(_sizes(spec.graph.inputs[name], lengths))
        for word in words:
            if word == "valid":
                made.append(torch.ones(batch, tokens, dtype=torch.bool, device=device))
            else:
                made.append(torch.randint(0, spec.interface.labels[word], (batch, tokens), device=device))
    return made


def _sizes(stream: Stream, lengths: dict[str, int]) -> list[int]:
    return [a.size if isinstance(a.size, int) else lengths[a.size] for span in stream.spans for a in span.axes]


def _tensor(stream: Stream, batch: int, lengths: dict[str, int], dtype: torch.dtype, device: str) -> Tensor:
    sizes = _sizes(stream, lengths)
    if stream.content == "ids":
        return torch.randint(0, stream.width, (batch, *sizes), device=device)
    return torch.randn(batch, *sizes, stream.width, dtype=dtype, device=device)


def peak_memory(run: Callable[[], Any], device: str) -> int | None:
    """Bytes that a call holds at most, all that is there before included; None where the system does not say."""
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device)
    run()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 if sys.platform == "linux" else None
