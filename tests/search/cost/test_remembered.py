"""What another process measured is what this one would measure."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search.cost import Cost, price, remembered, unit
from tests.search.cost.small import SPECS


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("ARCHSPEC_CACHE")
    remembered._opened.cache_clear()
    unit.forget()
    yield tmp_path / "archspec" / "costs.sqlite"
    unit.forget()
    remembered._opened.cache_clear()


def anew(name: str = "window", **more: Any) -> Cost:
    """The price of a small spec to a process that has just begun."""
    unit.forget()
    remembered._opened.cache_clear()
    return price(SPECS[name](), device="l4", **more)


def refuse(*_: Any) -> Any:
    raise AssertionError("measured")


@pytest.mark.parametrize("name", SPECS)
def test_what_is_recalled_is_what_was_measured(name: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = anew(name)
    units = dict(unit._units)
    monkeypatch.setattr(unit, "_measure", refuse)
    monkeypatch.setattr(unit, "measure_block", refuse)
    assert anew(name) == first
    assert {key: vars_of(one) for key, one in units.items()} == {k: vars_of(one) for k, one in unit._units.items()}


def vars_of(one: unit.Unit) -> dict[str, Any]:
    return {name: value for name, value in vars(replace(one)).items() if name in unit.Unit.__dataclass_fields__}


def test_other_settings_and_other_sources_are_measured(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    anew()
    monkeypatch.setattr(unit, "_measure", refuse)
    for more in ({"length": 7}, {"batch": 2}, {"dtype": "bfloat16"}):
        with pytest.raises(AssertionError, match="measured"):
            anew(**more)
    monkeypatch.setattr(remembered, "fingerprint", lambda: "another")
    with pytest.raises(AssertionError, match="measured"):
        anew()


def test_off_reads_and_writes_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHSPEC_CACHE", "off")
    anew()
    assert not file.exists()


@pytest.mark.parametrize("content", [b"", b"something else, and longer than the header of a database" * 9])
def test_a_foreign_file_is_replaced(content: bytes, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.parent.mkdir()
    file.write_bytes(content)
    first = anew()
    monkeypatch.setattr(unit, "_measure", refuse)
    assert anew() == first


@pytest.mark.parametrize("value", ["", "{", "[]", "null", '["a", [[], [], 0, 0, 0, []], {}, [[1, 1]]]'])
def test_an_entry_that_is_none_is_measured_again(value: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = anew()
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE units SET value = ?", (value,))
    connection.close()
    assert anew() == first
    monkeypatch.setattr(unit, "_measure", refuse)
    assert anew() == first


def test_a_table_of_another_form_is_left_alone(file: Path) -> None:
    file.parent.mkdir()
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE units (name TEXT)")
    connection.close()
    assert anew() == anew()


def test_a_folder_that_cannot_be_written_means_measuring(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.parent.write_text("no folder")
    assert anew() == anew()
    assert file.parent.read_text() == "no folder"


def test_the_oldest_entries_go_first(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "LARGEST", 1000)
    monkeypatch.setattr(remembered, "LOOK", 4)
    for number in range(100):
        remembered.keep(str(number), "x" * 98)
    assert remembered.recall("0") is None
    assert remembered.recall("99") == "x" * 98
    with sqlite3.connect(file) as connection:
        (count,) = connection.execute("SELECT count(*) FROM units").fetchone()
    connection.close()
    assert 3 <= count <= 14


def test_a_process_that_remembers_imports_no_compiler_of_torch(file: Path) -> None:
    code = (
        "import sys; from archspec import spec; from search.cost import price;"
        "price(spec.load('examples/tiny.yaml'), device='l4');"
        "print([name for name in ('torch._dynamo', 'sympy') if name in sys.modules])"
    )
    run = [sys.executable, "-c", code]
    root = Path(__file__).parents[3]
    found = [
        subprocess.run(run, env=os.environ, cwd=root, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert found[1].strip() == "[]"
