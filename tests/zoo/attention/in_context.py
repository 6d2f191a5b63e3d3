"""Linear regression in context: examples of a random linear function, and a query."""

import torch
from torch import Tensor


def regression(count: int, examples: int, features: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Examples ``[count, examples, features + 1]`` of ``(x, w x)``, queries ``(x, 0)``, and what is asked for."""
    w = torch.randn(count, features, 1, generator=generator)
    x = torch.randn(count, examples + 1, features, generator=generator)
    y = x @ w
    asked = torch.cat((x[:, -1:], torch.zeros(count, 1, 1)), -1)
    return torch.cat((x, y), -1)[:, :-1], asked, y[:, -1, 0]
