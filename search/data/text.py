"""Text as bytes: one token a byte, any file or folder, by default the sources of Python's own standard library."""

from __future__ import annotations

import hashlib
import math
import os
import sysconfig
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from archspec.errors import Problem, SpecError
from search.data.batches import Batch, Data, DataSet, random

MASK = 256  # the token after the 256 bytes; only masked language models read it
MASKED_SHARE = 0.15  # Devlin et al. 2019, "BERT", arXiv 1810.04805, section 3.1
SKIPPED = {"__pycache__", "site-packages", "dist-packages", "node_modules", "test", "tests", "idlelib"}


class Text(Data):
    """Byte-level text. Files are split into training and validation by the hash of their names, a single file by place.

    Example:
        data: {kind: text, path: ~/books, megabytes: 50}
    """

    kind: Literal["text"] = "text"
    path: str | None = Field(None, description="a file or a folder; without it, the Python standard library's sources")
    megabytes: float = Field(8, gt=0, description="at most so much is read")
    validation: float = Field(0.1, gt=0, lt=1, description="share held out")

    def open(self, interface: Any) -> TextSet:
        need = {"causal_lm": 256, "seq2seq_lm": 256, "masked_lm": 257}.get(interface.name_)
        if need is None:
            cause = f"text cannot train a model of interface {interface.name_}"
            raise SpecError(Problem(cause, "text fits causal_lm, masked_lm and seq2seq_lm", "data"))
        if interface.vocab < need:
            what = "256 bytes" if need == 256 else "256 bytes and a mask"
            hint = f"try vocab: {need} in the interface"
            cause = f"text has {what}, the interface only {interface.vocab} tokens"
            raise SpecError(Problem(cause, hint, "data"))
        training, held_out = self._read()
        return TextSet(interface, training, held_out)

    def _read(self) -> tuple[bytes, bytes]:
        root = Path(self.path).expanduser() if self.path else Path(sysconfig.get_paths()["stdlib"])
        limit = int(self.megabytes * 1e6)
        try:
            if root.is_file():
                data = _text(root, limit)
                if data is None:
                    raise SpecError(Problem(f"{root} is not text: it has zero bytes", "name a text file", "data.path"))
                if len(data) >= 2:
                    cut = min(len(data) - 1, max(1, round(len(data) * (1 - self.validation))))
                    return data[:cut], data[cut:]
            elif root.is_dir():
                splits = self._read_folder(root, limit)
                if all(splits):
                    return splits
            else:
                raise SpecError(Problem(f"there is no file or folder {root}", None, "data.path"))
        except OSError as error:
            raise SpecError(Problem(f"{error.filename} cannot be read: {error.strerror}", None, "data.path")) from None
        cause = f"there is too little text in {root}"
        raise SpecError(Problem(cause, "name a file or folder with more of it", "data.path"))

    def _read_folder(self, root: Path, limit: int) -> tuple[bytes, bytes]:
        # Files in the order of their hashes: neither the cap nor the split then favours a part of the folder.
        files = _walk(root, ".py" if self.path is None else "")
        ranked = sorted((_ranks(path.relative_to(root)), path) for path in files)
        parts: tuple[list[bytes], list[bytes]] = ([], [])
        seen: set[bytes] = set()
        left = limit
        for (_, rank), path in ranked:
            data = _text(path, left)
            if not data or (digest := hashlib.sha256(data).digest()) in seen:
                continue  # a copy in both splits would be learned by heart
            seen.add(digest)
            parts[rank < self.validation].append(data)
            left -= len(data)
            if left <= 0:
                break
        if len(seen) < 10:  # too few for a split by file to come near the share asked for
            joined = b"\n".join(sorted(parts[0] + parts[1]))
            cut = round(len(joined) * (1 - self.validation))
            return joined[:cut], joined[cut:]
        return b"\n".join(parts[0]), b"\n".join(parts[1])


class TextSet(DataSet):
    """Windows of text: ``tokens`` ``[B, T]`` int64, targets ``[B, T]``.

    A sequence-to-sequence model reads ``source`` ``[B, S]`` and goes on with it: ``target`` ``[B, T]`` are the bytes
    that follow.
    """

    bytes_per_target = 1.0

    def __init__(self, interface: Any, training: bytes, held_out: bytes) -> None:
        self.interface: Any = interface  # of one of the three kinds that have tokens
        self._training = np.frombuffer(training, np.uint8)
        self._held_out = np.frombuffer(held_out, np.uint8)
        digest = hashlib.sha256(len(training).to_bytes(8, "little") + training + held_out)
        self.fingerprint = f"text:{digest.hexdigest()[:16]}"

    def batch(self, step: int, *, seed: int, size: int, length: int | None) -> Batch:
        source, length = self._lengths(length)
        chance = random(seed, step)
        starts = chance.integers(0, self._room(self._training, source + length), size)
        return self._batch(self._training, starts, source, length, chance)

    def part(self, share: float) -> TextSet:
        found = copy(self)
        found._training = self._training[: math.ceil(share * len(self._training))]
        return found

    def validation(self, *, size: int, length: int | None, batches: int) -> Iterator[Batch]:
        source, length = self._lengths(length)
        room = self._room(self._held_out, source + length)
        windows = min(batches * size, max(1, len(self._held_out) // (source + length)))
        starts = np.linspace(0, room - 1, windows).astype(np.int64)
        for number, first in enumerate(range(0, windows, size)):
            yield self._batch(self._held_out, starts[first : first + size], source, length, random(0, number))

    def _lengths(self, length: int | None) -> tuple[int, int]:
        """Of the source, 0 where there is none, and of the sequence that is learned."""
        longest = self.interface.length
        if length is not None and length > longest:
            cause = f"sequences of {length} are longer than the interface's {longest}"
            raise SpecError(Problem(cause, f"try length: {longest}", "train.length"))
        length = int(length or longest)
        if self.interface.name_ != "seq2seq_lm":
            return 0, length
        return min(length, self.interface.source_length or length), length

    def _room(self, data: np.ndarray[Any, Any], length: int) -> int:
        """How many places a window and its next byte may start at."""
        if len(data) <= length:
            which = "validation" if data is self._held_out else "training"
            cause = f"the {which} text has {len(data)} bytes, sequences have {length}"
            raise SpecError(Problem(cause, "name more text, or shorten train.length", "data"))
        return len(data) - length

    def _batch(
        self,
        data: np.ndarray[Any, Any],
        starts: np.ndarray[Any, Any],
        source: int,
        length: int,
        chance: np.random.Generator,
    ) -> Batch:
        windows = data[starts[:, None] + np.arange(source + length + 1)].astype(np.int64)
        if self.interface.name_ == "masked_lm":
            return _masked(windows[:, :-1], chance)
        before, tokens = torch.from_numpy(windows).tensor_split([source], dim=1)
        given, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
        if self.interface.name_ == "causal_lm":
            return Batch({"tokens": given}, targets)
        return Batch({"source": before.contiguous(), "target": given}, targets)


def _masked(tokens: np.ndarray[Any, Any], chance: np.random.Generator) -> Batch:
    """Of the chosen tokens, 80 % become the mask, 10 % any byte, 10 % stay (BERT, section 3.1)."""
    chosen = chance.random(tokens.shape) < MASKED_SHARE
    chosen[:, 0] |= ~chosen.any(axis=1)  # every sequence teaches something
    fate = chance.random(tokens.shape)
    changed = np.where(fate < 0.8, MASK, np.where(fate < 0.9, chance.integers(0, 256, tokens.shape), tokens))
    targets: Tensor = torch.from_numpy(np.where(chosen, tokens, -100))
    return Batch({"tokens": torch.from_numpy(np.where(chosen, changed, tokens))}, targets)


def _walk(root: Path, ending: str) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        # A user's folder is read whole; only hidden parts of it and, of the standard library, its tests are left out.
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not (ending and name in SKIPPED))
        for name in sorted(names):
            path = Path(folder, name)
            if name.endswith(ending) and not name.startswith(".") and path.is_file():
                yield path


def _ranks(path: Path) -> tuple[float, float]:
    """Two independent numbers in [0, 1) that depend on the name alone: for the order, and for the split."""
    digest = hashlib.sha256(path.as_posix().encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48, int.from_bytes(digest[6:12], "big") / 2**48


def _text(path: Path, limit: int) -> bytes | None:
    """The beginning of a file, or None when it is binary."""
    with path.open("rb") as stream:
        data = stream.read(limit)
    return None if b"\0" in data else data
