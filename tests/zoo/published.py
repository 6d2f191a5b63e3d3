"""Comparing a spec of the zoo with somebody else's code: their weights in our model, parameters, FLOPs."""

import importlib
import json
import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from archspec.source import parse
from archspec.spec import Spec, load
from compiler.model import compile

ZOO = Path(__file__).parents[2] / "examples" / "zoo"
PARTS = ["", ".transforms", ".transforms.functional", ".datasets", ".datasets.folder", ".models",
         ".models.feature_extraction", ".ops", ".ops.misc", ".io"]  # fmt: skip


class Anything(MagicMock):
    """A module of which any name can be imported."""

    __path__: list[str] = []
    __spec__ = ModuleSpec("torchvision", None)


def import_timm() -> Any:
    """The package, with or without torchvision; its models need nothing of that, which its other modules import.

    Errors:
        ModuleNotFoundError: it is not installed.
    """
    if find_spec("torchvision") is not None:
        return importlib.import_module("timm")
    empty: dict[str, ModuleType] = {f"torchvision{part}": Anything() for part in PARTS}
    sys.modules.update(empty)
    try:
        return importlib.import_module("timm")
    finally:
        for name in empty:
            del sys.modules[name]  # nobody else shall believe that torchvision is there


def build(name: str, device: str = "cpu", **changes: Any) -> Any:
    """The example of that name, ready for inference; ``changes`` as of `spec`."""
    return compile(spec(name, **changes), device=device, seed=1).eval()


def spec(name: str, **changes: Any) -> Spec:
    """The example of that name with changes by path, dots as ``__``."""
    changed = {path.replace("__", "."): parse(json.dumps({"value": value}))["value"] for path, value in changes.items()}
    return load(ZOO / f"{name}.yaml", set=changed)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def macs(model: nn.Module, *inputs: Tensor) -> float:
    """Multiply-adds of matrix products and convolutions of a forward pass on the meta device."""
    with FlopCounterMode(display=False) as counter:
        model(*(tensor.to("meta") for tensor in inputs))
    return counter.get_total_flops() / 2


@torch.no_grad()
def random(model: nn.Module) -> nn.Module:
    """The model with other weights, so large that every part of it tells in the output; the same ones each time."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 1:
            parameter.add_(noise, alpha=0.2)
        else:
            table = parameter.shape[0] == 1  # of places, or a class token
            parameter.copy_(noise / (2 if table else parameter[0].numel() ** 0.5))
    return model.eval()


@torch.no_grad()
def copy(ours: nn.Module, source: dict[str, Tensor], names: Mapping[str, str]) -> None:
    """Gives our model their weights: every parameter of both is named, none twice.

    Args:
        source: their parameters by name; kernels of convolutions are laid out as matrices here.
        names: our parameter or module -> theirs; several, separated by spaces, are put one after another.
    """
    used: list[str] = []
    for name, parameter in ours.named_parameters():
        module, _, last = name.rpartition(".")
        theirs = names[name].split() if name in names else [f"{part}.{last}" for part in names[module].split()]
        value = torch.cat([matrix(source[part]) for part in theirs])
        assert value.numel() == parameter.numel(), (name, theirs)
        parameter.copy_(value.view_as(parameter))
        used += theirs
    assert sorted(used) == sorted(source)


def matrix(kernel: Tensor) -> Tensor:
    """``[outputs, channels, rows, columns]`` as ``[outputs, rows * columns * channels]``; others as they are."""
    return kernel.permute(0, 2, 3, 1).flatten(1) if kernel.ndim == 4 else kernel


def assert_same(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.1  # the comparison is of something
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)
