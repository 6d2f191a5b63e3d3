"""Kinds are found by name, and imported no sooner than they are asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from archspec.kind import REGISTRY, Kind


def test_every_built_in_kind_is_defined_where_it_is_looked_for() -> None:
    kinds = {name: kind for name, kind in REGISTRY.items() if "/" not in name}
    assert {name: kind.__module__ for name, kind in kinds.items()} == {
        name: f"archspec.kinds.{home}" for name, home in REGISTRY.homes.items()
    }


def test_one_kind_is_imported_without_the_others() -> None:
    code = "import sys; from archspec.kind import REGISTRY; REGISTRY['fourier']; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert [name for name in loaded if name.startswith("archspec.kinds.")] == ["archspec.kinds.fourier"]


def test_a_name_that_nobody_has_is_no_kind() -> None:
    assert "no_such_kind" not in REGISTRY
    assert REGISTRY.get("no_such_kind") is None


def test_a_kind_cannot_take_the_name_of_another_one_that_nobody_asked_for_yet() -> None:
    with pytest.raises(ValueError, match="two kinds are called 'fourier'"):

        class Mine(Kind, kind="fourier"):
            """Another."""
