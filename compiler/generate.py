"""Generation: the next tokens of a batch of sequences, by greedy choice or by chance."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from archspec.errors import Problem, SpecError
from compiler.decoding import Decoding


def generate(
    model: fx.GraphModule,
    prompts: Tensor | Sequence[Sequence[int]],
    *,
    tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: Collection[int] = (),
    seed: int = 0,
    source: Mapping[str, Tensor] | None = None,
) -> list[list[int]]:
    """The tokens that a model adds to each prompt, up to the first of ``stop``, which is left out.

    Arguments and errors are those of `stream`.
    """
    found: list[list[int]] = [[] for _ in prompts]
    ended = [False] * len(found)
    for step in stream(model, prompts, tokens=tokens, temperature=temperature, top_k=top_k, top_p=top_p, stop=stop,
                       seed=seed, source=source):  # fmt: skip
        for number, token in enumerate(step):
            ended[number] = ended[number] or token in stop
            if not ended[number]:
                found[number].append(token)
    return found


@torch.no_grad()
def stream(
    model: fx.GraphModule,
    prompts: Tensor | Sequence[Sequence[int]],
    *,
    tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: Collection[int] = (),
    seed: int = 0,
    source: Mapping[str, Tensor] | None = None,
) -> Iterator[list[int]]:
    """One token for each prompt at a time, until all have met one of ``stop``.

    Args:
        model: a compiled causal language model.
        prompts: ids of each sequence, of any lengths from 1.
        tokens: how many are added at most.
        temperature: 0 takes the likeliest token; else logits are divided by it and a token is drawn.
        top_k: only this many of the likeliest tokens are drawn from.
        top_p: only the likeliest tokens whose probabilities first add up to this are drawn from (Holtzman et al. 2019,
            "The Curious Case of Neural Text Degeneration", arXiv 1904.09751).
        source: of a model of two inputs, the tensors that are read once, by name.

    Errors:
        ValueError: an empty prompt, or a number out of its range.
        SpecError: the model cannot decode, or what it gives is infinite or no number.
    """
    if temperature < 0 or (top_k is not None and top_k < 1) or (top_p is not None and not 0 < top_p <= 1) or tokens < 0:
        raise ValueError("temperature is 0 or more, top_k 1 or more, top_p above 0 and at most 1, tokens 0 or more")
    rows = [torch.as_tensor(row, dtype=torch.int64) for row in prompts]
    if any(len(row) == 0 for row in rows):
        raise ValueError("a prompt needs at least one token")
    if len(several := [name for name, stream in model.spec.graph.inputs.items() if stream.causal]) > 1:
        cause = f"a token is read as {', '.join(several)}, of which one alone would be generated"
        raise SpecError(Problem(cause, "compiler.decoding.Decoding takes them by name", "interface.inputs"))
    device = next(model.parameters()).device
    longest = max(len(row) for row in rows)
    start = torch.tensor([longest - len(row) for row in rows], device=device)
    ids = torch.stack([torch.cat((row.new_zeros(longest - len(row)), row)) for row in rows]).to(device)
    chance = torch.Generator(device=device).manual_seed(seed)
    training = model.training
    model.eval()
    try:
        decoding = Decoding(model, length=longest + tokens, start=start, source=source)
        stops = torch.tensor(sorted(stop), device=device)
        ended = torch.zeros(len(rows), dtype=torch.bool, device=device)
        for _ in range(tokens):
            found: Any = decoding(ids)
            logits = (next(iter(found.values())) if isinstance(found, dict) else found)[:, -1]
            ids = pick(logits, temperature, top_k, top_p, chance)[:, None]
            yield ids[:, 0].tolist()
            if len(stops):
                ended |= torch.isin(ids[:, 0], stops)
                if bool(ended.all()):
                    return
    finally:
        model.train(training)


def pick(
    logits: Tensor, temperature: float, top_k: int | None, top_p: float | None, chance: torch.Generator
) -> Tensor:  # fmt: skip
    """A token ``[batch]`` from logits ``[batch, vocabulary]``."""
    most, likeliest = logits.max(-1)
    if not bool(most.isfinite().all()):
        cause = "the model's logits are no numbers"
        raise SpecError(Problem(cause, "its weights are none, or too large for their type"))
    if temperature == 0:
        return likeliest
    logits = ((logits - most[:, None]).double() / temperature).float()
    if top_k is not None and top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(top_k, dim=-1).values[:, -1:], float("-inf"))
    if top_p is not None and top_p < 1:
        ordered, places = logits.sort(dim=-1, descending=True)
        shares = ordered.softmax(-1)
        dropped = shares.cumsum(-1) - shares >= top_p  # those before it are enough already
        logits = logits.masked_fill(torch.zeros_like(dropped).scatter(1, places, dropped), float("-inf"))
    return torch.multinomial(logits.softmax(-1), 1, generator=chance)[:, 0]
