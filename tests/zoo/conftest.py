"""timm, with or without torchvision."""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import pytest

PARTS = ["", ".transforms", ".transforms.functional", ".datasets", ".datasets.folder", ".models",
         ".models.feature_extraction", ".ops", ".ops.misc", ".io"]  # fmt: skip


class Anything(MagicMock):
    """A module of which any name can be imported."""

    __path__: list[str] = []
    __spec__ = ModuleSpec("torchvision", None)


@pytest.fixture(scope="session")
def timm() -> Any:
    """The package; its models need nothing of torchvision, which its other modules import."""
    if find_spec("torchvision") is not None:
        return pytest.importorskip("timm")
    empty: dict[str, ModuleType] = {f"torchvision{part}": Anything() for part in PARTS}
    sys.modules.update(empty)
    try:
        return pytest.importorskip("timm")
    finally:
        for name in empty:
            del sys.modules[name]  # nobody else shall believe that torchvision is there
