"""What data is to a training run: batches that are a function of (seed, step), and a fixed validation split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import numpy as np
from torch import Tensor

from archspec.errors import Problem, SpecError
from archspec.kinds.interface import Interface
from search.kinds import Kind


class Batch(NamedTuple):
    """Inputs by the interface's names, and targets; a target of -100 is not learned from."""

    inputs: dict[str, Tensor]
    targets: Tensor


class DataSet(ABC):
    """Opened data that is known to fit one interface."""

    interface: Interface
    fingerprint: str  # of the content: two data sets with the same one give the same batches
    bytes_per_target: float | None = None  # of text, so that a loss can be told in bits per byte

    @abstractmethod
    def batch(self, step: int, *, seed: int, size: int, length: int | None) -> Batch:
        """The training batch of a step: the same for the same arguments, on any machine and after any restart."""

    def part(self, share: float) -> DataSet:
        """The same with this share of the training split, above 0; validation is on what it was.

        Errors:
            SpecError: it cannot be parted.
        """
        cause = f"this data cannot be parted: {type(self).__name__} has no part"
        raise SpecError(Problem(cause, "use fidelities of steps", "train.share"))

    @abstractmethod
    def validation(self, *, size: int, length: int | None, batches: int) -> Iterator[Batch]:
        """At most so many batches of the validation split, always the same ones."""


class Data(Kind):
    """A kind of data; a subclass has its fields and `open`."""

    role: ClassVar[str] = "data"
    group: ClassVar[str] = "archspec.data"
    registered: ClassVar[dict[str, type[Kind]]] = {}

    def open(self, interface: Interface) -> DataSet:
        """Reads the data and checks that a model of the interface can be trained on it.

        Errors:
            SpecError: the data cannot be read, or does not fit the interface.
        """
        raise NotImplementedError


def random(seed: int, step: int) -> np.random.Generator:
    """A generator that depends on nothing but the two numbers (Philox is counter-based)."""
    return np.random.Generator(np.random.Philox(key=[seed % 2**64, step]))
