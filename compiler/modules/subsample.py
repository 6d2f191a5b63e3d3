"""Which part of the memory queries read (schema in archspec.kinds.attention)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from archspec.kinds import attention as kinds


def draw(
    spec: kinds.Subsample, queries: int, tokens: int, *, causal: bool, device: torch.device
) -> Iterator[tuple[slice, Tensor]]:
    """Runs of queries, and the tokens ``[tokens / ratio]`` that each reads, in their order.

    The first token is always among them where later ones are hidden, so that every query reads one.
    """
    size = max(1, tokens // spec.ratio)
    if spec.spread is None:
        runs, order = 1, torch.randperm(tokens, device=device)
    else:
        runs = min(spec.ratio, queries)
        places = torch.arange(tokens, device=device) + spec.spread * tokens * torch.randn(tokens, device=device)
        order = places.argsort()
    for run in range(runs):
        chosen = order[run * size : (run + 1) * size].sort().values
        if causal:
            chosen = torch.cat((chosen.new_zeros(1), chosen[1:]))
        yield slice(run * queries // runs, (run + 1) * queries // runs), chosen
