"""A forward pass in which some functions of torch are watched, or replaced by others.

It works on any module, traced or written by hand, whichever class the function is called from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

LAYER_NORMS = (F.layer_norm, torch.layer_norm)
RMS_NORMS = (F.rms_norm, torch.rms_norm)

Function = Callable[..., Any]


class Replacing(TorchFunctionMode):
    """Inside, calls of the given functions go to the given replacements, which may call the originals."""

    def __init__(self, replacements: Mapping[Function, Function]) -> None:
        super().__init__()
        self.replacements = replacements

    def __torch_function__(
        self, func: Function, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self.replacements.get(func, func)(*args, **(kwargs or {}))
