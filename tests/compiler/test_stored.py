"""Safetensors files: what the library writes is read, what is written the library reads, damage is told."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from compiler import stored
from compiler.stored import DTYPES, Damaged, header, write

VALUES = {
    "matrix": torch.arange(12.0).view(3, 4),
    "number": torch.tensor(2.0),
    "nothing": torch.zeros(0, 3),
    **{f"of {name}": torch.arange(5).to(dtype) for name, dtype in DTYPES.items()},
}


def test_what_the_library_writes_is_read(tmp_path: Path) -> None:
    save_file(VALUES, tmp_path / "a", {"format": "pt"})
    found, metadata = header(tmp_path / "a")
    assert metadata == {"format": "pt"}
    assert found.keys() == VALUES.keys()
    for name, value in VALUES.items():
        assert found[name].tensor().equal(value) and found[name].dtype == value.dtype, name


def test_what_is_written_the_library_reads(tmp_path: Path) -> None:
    write(tmp_path / "a", {name: (value.to("meta"), lambda v=value: v) for name, value in VALUES.items()}, {"a": "é"})  # type: ignore[misc]
    found = load_file(tmp_path / "a")
    assert found.keys() == VALUES.keys() and header(tmp_path / "a")[1] == {"a": "é"}
    for name, value in VALUES.items():
        assert found[name].equal(value) and found[name].dtype == value.dtype, name


@pytest.mark.parametrize("chunk", [2**25, 8])
def test_numbers_go_into_weights_of_any_type_and_layout(
    tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "CHUNK", chunk)
    value = torch.arange(24.0).view(6, 4)
    save_file({"a": value}, tmp_path / "a")
    found = header(tmp_path / "a")[0]["a"]
    for into in (
        torch.empty(6, 4),
        torch.empty(6, 4, dtype=torch.bfloat16),
        torch.empty(4, 6).t(),
        torch.empty(9, 4)[3:],
    ):
        found.into(into)
        assert into.equal(value.to(into.dtype))
    first, second = found.split([2, 4])
    assert first.tensor().equal(value[:2]) and second.tensor().equal(value[2:])
    assert torch.stack([part.tensor() for part in found.parts()]).equal(value)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "its 0 bytes do not begin with a header"),
        (b"short", "its 5 bytes do not begin with a header"),
        (struct.pack("<Q", 2**63) + b"{}", "its 10 bytes do not begin with a header"),
        (struct.pack("<Q", 2) + b"[]", "its header cannot be understood"),
        (struct.pack("<Q", 2) + b"\xff}", "its header cannot be understood"),
        (struct.pack("<Q", 2) + b"{}rest", "its header tells of 10 bytes; there are 14"),
        (b"PK\x03\x04" + b"0" * 99, "a pickle"),
        (b"\x80\x04" + b"0" * 99, "a pickle"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a note of Git LFS"),
    ],
)
def test_what_is_no_such_file_is_told(tmp_path: Path, content: bytes, cause: str) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(Damaged, match=cause):
        header(tmp_path / "a")


@pytest.mark.parametrize(
    ("entry", "cause"),
    [
        ('{"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}', "tells of 77 bytes; there are 69"),
        ('{"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}', "cannot be understood"),
        ('{"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}', "cannot be understood"),
        ('{"dtype": "F32", "shape": ["a", 1000000000000], "data_offsets": [0, 4]}', "cannot be understood"),
        ('{"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}', "cannot be understood"),
        ('{"dtype": "F32", "shape": [1]}', "cannot be understood"),
        ('{"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}', "cannot be understood"),
        ('{"dtype": "F4", "shape": [1], "data_offsets": [0, 4]}', "holds numbers of type F4"),
        ("3", "cannot be understood"),
    ],
)
def test_a_damaged_header_is_told(tmp_path: Path, entry: str, cause: str) -> None:
    text = f'{{"a": {entry}}}'.encode()
    (tmp_path / "a").write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(Damaged, match=cause):
        header(tmp_path / "a")


def test_numbers_that_are_gone_are_told(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(99)}, tmp_path / "a")
    found = header(tmp_path / "a")[0]["a"]
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:-40])
    with pytest.raises(Damaged, match="40 bytes of it are missing"):
        found.tensor()
