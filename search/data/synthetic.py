"""Synthetic tasks: sequences made by a rule, for causal language models, each of one ability of a mixer.

The tasks and their sizes are those of MAD: Poli et al. 2024, "Mechanistic design and scaling of hybrid architectures",
arXiv 2403.17844. Only what can be known is scored: ``validation_accuracy`` is the share of it that a model gets right.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from copy import copy
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field

from archspec.errors import Problem, SpecError
from search.data.batches import Batch, Data, DataSet, random

Numbers = np.ndarray[Any, Any]

UNSCORED = -100
HELD_OUT = 1_280  # sequences of the validation split
TRIES = 100  # draws of one sequence, before a task counts as too small for two splits


class Sequence(NamedTuple):
    """Tokens ``[T]`` and what a model is to answer at each of them ``[T]``, -100 where nothing is scored."""

    tokens: Numbers
    targets: Numbers


class Synthetic(Data):
    """A kind of synthetic task; a subclass has its fields and what is abstract here."""

    vocab: int = Field(16, ge=4, description="tokens, special ones among them")
    length: int = Field(128, ge=1, description="tokens of a sequence; train.length overrides it")
    examples: int = Field(12_800, ge=1, description="different training sequences; an epoch has so many")

    @property
    def least(self) -> int:
        """Tokens of the shortest sequence that holds the task."""
        raise NotImplementedError

    @property
    def chance(self) -> float:
        """The share of targets that is right by guessing among all tokens that a target may be."""
        raise NotImplementedError

    def sequence(self, chance: np.random.Generator, *, length: int, held_out: bool) -> Sequence:
        """One sequence of a split, drawn anew."""
        raise NotImplementedError

    def open(self, interface: Any) -> SyntheticSet:
        name = self.kind_name
        if interface.name_ != "causal_lm":
            cause = f"{name} cannot train a model of interface {interface.name_}"
            raise SpecError(Problem(cause, f"{name} fits causal_lm", "data"))
        if interface.vocab < self.vocab:
            cause = f"{name} has {self.vocab} tokens, the interface only {interface.vocab}"
            raise SpecError(Problem(cause, f"try vocab: {self.vocab} in the interface", "data.vocab"))
        return SyntheticSet(self, interface)


class SyntheticSet(DataSet):
    """``tokens`` ``[B, T]`` int64, targets ``[B, T]``.

    A split draws until a sequence is on its side of a hash, so that no sequence is in both.
    """

    def __init__(self, task: Synthetic, interface: Any) -> None:
        self.interface: Any = interface
        self.task, self.examples = task, task.examples
        digest = hashlib.sha256(task.model_dump_json().encode())
        for held_out in (False, True):  # a changed rule is other data
            digest.update(_bytes(self._sequence(0, self._length(None), held_out)))
        self.fingerprint = f"{task.kind_name}:{digest.hexdigest()[:16]}"

    def part(self, share: float) -> SyntheticSet:
        found = copy(self)
        found.examples = math.ceil(share * self.examples)
        return found

    def batch(self, step: int, *, seed: int, size: int, length: int | None) -> Batch:
        # An epoch is a permutation that the seed and the epoch's number decide.
        count, length = self.examples, self._length(length)
        places = range(step * size, (step + 1) * size)
        orders = {epoch: random(seed, epoch).permutation(count) for epoch in {place // count for place in places}}
        return self._batch([int(orders[place // count][place % count]) for place in places], length, held_out=False)

    def validation(self, *, size: int, length: int | None, batches: int) -> Iterator[Batch]:
        length = self._length(length)
        last = min(HELD_OUT, batches * size)
        for first in range(0, last, size):
            yield self._batch(range(first, min(first + size, last)), length, held_out=True)

    def _batch(self, numbers: Any, length: int, *, held_out: bool) -> Batch:
        rows = [self._sequence(number, length, held_out) for number in numbers]
        tokens, targets = (torch.from_numpy(np.stack(part).astype(np.int64)) for part in zip(*rows, strict=True))
        return Batch({"tokens": tokens}, targets)

    def _sequence(self, number: int, length: int, held_out: bool) -> Sequence:
        chance = random(int(held_out), number)
        for _ in range(TRIES):
            found = self.task.sequence(chance, length=length, held_out=held_out)
            if hashlib.blake2b(_bytes(found), digest_size=1).digest()[0] % 2 == held_out:
                return found
        cause = f"{self.task.kind_name} of {length} tokens has too few sequences for training and validation"
        raise SpecError(Problem(cause, "try a larger vocab or length", "data"))

    def _length(self, length: int | None) -> int:
        """Tokens of a sequence, for what training says of it."""
        path = "train.length" if length else "data.length"
        length = length or self.task.length
        if length > self.interface.length:
            cause = f"sequences of {length} are longer than the interface's {self.interface.length}"
            raise SpecError(Problem(cause, f"try length: {self.interface.length}", path))
        if length < self.task.least:
            cause = f"{self.task.kind_name} needs sequences of {self.task.least} tokens, these have {length}"
            raise SpecError(Problem(cause, f"try length: {self.task.least}", path))
        return length


def _bytes(sequence: Sequence) -> bytes:
    return np.stack(sequence).astype(np.int64).tobytes()
