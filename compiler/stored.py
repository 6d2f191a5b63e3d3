"""Safetensors files, read and written tensor by tensor.

A file is the length of its header (8 bytes, little-endian), the header (JSON: the type, shape and place of each tensor,
and ``__metadata__``), and the numbers. Reading goes straight into the memory of a weight and writing straight from it,
so that neither needs memory beside the weights.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from archspec.blame import name as shown
from archspec.errors import either

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
          "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "I64": torch.int64, "I32": torch.int32,
          "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}
HEADER = 100 * 2**20  # bytes that a header has at most
CHUNK = 32 * 2**20  # bytes that are read at once where a tensor is converted or moved on the way


class Damaged(ValueError):
    """A file that cannot be read: why, and what to do about it."""

    def __init__(self, cause: str, hint: str = "truncated or damaged; fetch it again") -> None:
        super().__init__(cause)
        self.hint = hint


@dataclass(frozen=True)
class Stored:
    """A tensor in a file, or a part of one; its numbers are read when they are asked for.

    Attributes:
        file: where it is.
        dtype: of its numbers.
        shape: of the tensor.
        start: byte of the file at which it begins.
    """

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def parts(self) -> Iterator[Stored]:
        """The tensors along its first axis."""
        size = math.prod(self.shape[1:]) * self.dtype.itemsize
        for number in range(self.shape[0]):
            yield replace(self, shape=self.shape[1:], start=self.start + number * size)

    def split(self, sizes: list[int]) -> Iterator[Stored]:
        """Parts of its first axis."""
        start = self.start
        for size in sizes:
            yield replace(self, shape=(size, *self.shape[1:]), start=start)
            start += size * math.prod(self.shape[1:]) * self.dtype.itemsize

    def tensor(self) -> Tensor:
        """Its numbers.

        Errors:
            Damaged: the file ends before them.
        """
        value = torch.empty(self.shape, dtype=self.dtype)
        self._read(value)
        return value

    def into(self, view: Tensor) -> None:
        """Puts its numbers into a tensor of its shape.

        Errors:
            Damaged: the file ends before them.
        """
        if view.is_contiguous() and view.dtype == self.dtype and view.device.type == "cpu":
            self._read(view)
        elif self.ndim and self.size > CHUNK:
            rows = max(1, CHUNK * self.shape[0] // self.size)
            sizes = [min(rows, self.shape[0] - row) for row in range(0, self.shape[0], rows)]
            for part, piece in zip(self.split(sizes), view.split(sizes), strict=True):
                piece.copy_(part.tensor())
        else:
            view.copy_(self.tensor())

    def _read(self, value: Tensor) -> None:
        room = memoryview(value.detach().reshape(-1).view(torch.uint8).numpy())
        with self.file.open("rb", buffering=0) as file:
            file.seek(self.start)
            while room:
                count = file.readinto(room)
                if not count:
                    raise Damaged(f"{len(room):,} bytes of it are missing")
                room = room[count:]


def header(path: Path) -> tuple[dict[str, Stored], dict[str, str]]:
    """The tensors of a file by their names, and its metadata.

    Errors:
        Damaged: it is no safetensors file, or not whole.
        OSError: it cannot be read.
    """
    there = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(8)
        length = int.from_bytes(first, "little")
        if first == b"version ":
            raise Damaged("a note of Git LFS where the file belongs", "git lfs pull fetches it")
        if there < 8 or length > max(0, there - 8) or length > HEADER:
            if first.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x04")):  # a length may begin so as well
                raise Damaged("a pickle, which can run any code when it is read", SAFE)
            raise Damaged(f"no safetensors file: its {there:,} bytes do not begin with a header")
        text = file.read(length)
    try:
        entries = json.loads(text)
        metadata = {str(key): str(value) for key, value in (entries.pop("__metadata__", None) or {}).items()}
        found = {name: _entry(path, 8 + length, entry) for name, entry in entries.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise error if isinstance(error, Damaged) else Damaged("its header cannot be understood") from None
    end = max((one.start + one.size for one in found.values()), default=8 + length)
    if end != there:
        raise Damaged(f"its header tells of {end:,} bytes; there are {there:,}")
    return found, metadata


SAFE = "transformers writes safetensors: from_pretrained(…).save_pretrained(folder)"


def _entry(path: Path, base: int, entry: Any) -> Stored:
    shape, (start, end) = tuple(entry["shape"]), entry["data_offsets"]
    if entry["dtype"] not in DTYPES:
        raise Damaged(f"holds numbers of type {shown(str(entry['dtype']))}", f"what is read are {', '.join(DTYPES)}")
    if not all(isinstance(one, int) and one >= 0 for one in (start, *shape)):
        raise ValueError
    found = Stored(path, DTYPES[entry["dtype"]], shape, base + start)
    if found.size != end - start:
        raise ValueError
    return found


def write(
    path: Path, tensors: Mapping[str, tuple[Tensor, Callable[[], Tensor]]], metadata: Mapping[str, str]
) -> None:  # fmt: skip
    """Writes a file.

    Args:
        tensors: for each name a tensor of its shape and type, which may be on the meta device, and what makes its
            numbers when it is their turn.
        metadata: texts that stand in the header.
    """
    ordered = sorted(tensors.items(), key=lambda item: -item[1][0].element_size())  # so that each stays aligned
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    start = 0
    for name, (blank, _) in ordered:
        end = start + blank.numel() * blank.element_size()
        entries[name] = {"dtype": NAMES[blank.dtype], "shape": list(blank.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, (blank, make) in ordered:
            value = make().detach().cpu().contiguous()
            assert value.shape == blank.shape and value.dtype == blank.dtype
            file.write(memoryview(value.reshape(-1).view(torch.uint8).numpy()))


def few(names: Sequence[str]) -> str:
    """Names of tensors as words, some of them where there are many."""
    shown = either(names).replace(" or ", " and ")
    return f"{shown} ({len(names)} tensors)" if len(names) > 9 else shown


def extent(sizes: Iterable[int]) -> str:
    """A shape as words, ``4 × 8``."""
    return " × ".join(map(str, sizes)) or "a number"
