"""Functions of each feature, by their name in a spec."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def gelu_tanh(x: Tensor) -> Tensor:
    """The tanh form of GELU. Hendrycks and Gimpel 2016, arXiv 1606.08415."""
    return F.gelu(x, approximate="tanh")


def relu_squared(x: Tensor) -> Tensor:
    """So et al. 2021, "Primer", arXiv 2109.08668."""
    return F.relu(x).square()


def quick_gelu(x: Tensor) -> Tensor:
    """GELU by a sigmoid, ``x sigmoid(1.702 x)``. Hendrycks and Gimpel 2016, arXiv 1606.08415."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu_squared": relu_squared,
    "softplus": F.softplus,
    "identity": lambda x: x,
}
