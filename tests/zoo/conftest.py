"""timm, with or without torchvision."""

from typing import Any

import pytest

from tests.zoo.published import import_timm


@pytest.fixture(scope="session")
def timm() -> Any:
    """The package."""
    try:
        return import_timm()
    except ModuleNotFoundError:
        return pytest.skip("timm is not installed")
