"""Proxies by what attention heads look at."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.errors import Problem, SpecError
from search.objectives import Direction, Objective, Probed
from search.proxies.watching import Replacing


class HeadConfidence(Objective):
    """The largest attention weight of a query, a mean over tokens, heads and layers, between 0 and 1; more is better.

    Voita et al. 2019, "Analyzing multi-head self-attention", arXiv 1905.09418; of untrained models, as a proxy:
    Serianni and Kalita 2023, arXiv 2306.00288.
    """

    kind: Literal["head_confidence"] = "head_confidence"

    @property
    def direction(self) -> Direction:
        return "maximize"

    def probe(self, probed: Probed) -> float:
        found: list[float] = []

        def fused(
            q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
            is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
        ) -> Tensor:  # fmt: skip
            found.append(_largest(q, k, attn_mask, is_causal, scale))
            return F.scaled_dot_product_attention(
                q, k, v, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
            )

        def softmax(scores: Tensor, *args: Any, **named: Any) -> Tensor:
            weights = Tensor.softmax(scores, *args, **named)
            if weights.dim() == 4:  # [batch, heads, queries, memory]; those of routers and gates have three
                found.append(weights.amax(-1).mean().item())
            return weights

        functions = (torch.softmax, Tensor.softmax, F.softmax)
        replaced = {F.scaled_dot_product_attention: fused, **dict.fromkeys(functions, softmax)}
        with torch.no_grad(), Replacing(replaced):
            probed.model(**probed.batch.inputs)
        if not found:
            raise SpecError(Problem("there are no attention heads", "it is of models with attention", "objectives"))
        return sum(found) / len(found)


def _largest(q: Tensor, k: Tensor, mask: Tensor | None, causal: bool, scale: float | None) -> float:
    """The mean over queries of the largest weight."""
    scores = q @ k.repeat_interleave(q.shape[1] // k.shape[1], 1).mT * (scale or q.shape[-1] ** -0.5)
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    weights = scores.softmax(-1)
    return weights.nan_to_num().amax(-1).mean().item()  # a query that may read nothing has no weights
