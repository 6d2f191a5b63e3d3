"""Files that are whole or absent: written beside their place, flushed to the disk, then renamed over it.

A process that dies at any moment, or a disk that fills up, leaves the older file as it was.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from archspec.errors import Problem, SpecError
from compiler.stored import write


class NotSaved(SpecError):
    """A file could not be written: the disk is full or read-only. What was there before is still there."""


def write_text(path: Path, text: str) -> None:
    """Writes a text file. Raises `NotSaved`."""
    _write(path, lambda place: Path(place).write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Writes JSON, indented. Raises `NotSaved`."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    whole: Callable[[Tensor], Tensor] = lambda tensor: tensor,
) -> None:
    """Writes a safetensors file, tensor by tensor; ``whole`` makes all of one at its turn. Raises `NotSaved`."""
    held = {name: (tensor, lambda tensor=tensor: whole(tensor)) for name, tensor in tensors.items()}
    _write(path, lambda place: write(Path(place), held, metadata))


def flush(path: Path) -> None:
    """Has the disk keep a file, or the names in a folder, before anything that is done next. Raises `NotSaved`."""
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise not_saved(path, error) from None


def _write(path: Path, write: Any) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(os.fspath(beside))
        flush(beside)
        os.replace(beside, path)
    except OSError as error:
        raise not_saved(path, error) from None
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
    flush(path.parent)


def not_saved(path: Path, error: Exception) -> NotSaved:
    """The error that tells of a failed write, and how to go on."""
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    hint = "make room or name another folder, then give the same command again: it goes on from what was saved"
    return NotSaved(Problem(f"{path} cannot be written: {why}", hint))
