"""Handwritten digits, 8 x 8 pixels: 1,797 images that come with scikit-learn.

Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository (its test part).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from copy import copy
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from archspec.errors import Problem, SpecError
from search.data.batches import Batch, Data, DataSet, random

SHAPE = (8, 8, 1)
CLASSES = 10


class Digits(Data):
    """Images ``[B, 8, 8, 1]`` in 0 to 1, and their digits.

    Example:
        data: digits
    """

    kind: Literal["digits"] = "digits"
    validation: float = Field(0.2, gt=0, lt=1, description="share held out")

    def open(self, interface: Any) -> DigitsSet:
        if interface.name_ != "image_classification":
            cause = f"digits cannot train a model of interface {interface.name_}"
            raise SpecError(Problem(cause, "digits fit image_classification", "data"))
        if tuple(interface.image) != SHAPE:
            cause = f"digits are images of 8 x 8 x 1, the interface's are {' x '.join(map(str, interface.image))}"
            raise SpecError(Problem(cause, "try image: [8, 8, 1] in the interface", "data"))
        if interface.classes < CLASSES:
            cause = f"there are {CLASSES} digits, the interface has {interface.classes} classes"
            raise SpecError(Problem(cause, f"try classes: {CLASSES} in the interface", "data"))
        return DigitsSet(interface, self.validation)


class DigitsSet(DataSet):
    """``image`` ``[B, 8, 8, 1]`` float32, targets ``[B]`` int64."""

    def __init__(self, interface: Any, validation: float) -> None:
        from sklearn.datasets import load_digits  # its import takes a second

        self.interface = interface
        images, labels = load_digits(return_X_y=True)
        order = np.random.Generator(np.random.Philox(key=0)).permutation(len(labels))
        self._images = (images[order].reshape(-1, *SHAPE) / 16).astype(np.float32)
        self._labels = labels[order].astype(np.int64)
        self._held_out = round(len(labels) * validation)
        self._learned = len(labels) - self._held_out
        digest = hashlib.sha256(self._images.tobytes() + self._labels.tobytes()).hexdigest()
        self.fingerprint = f"digits:{digest[:16]}:{self._held_out}"

    def part(self, share: float) -> DigitsSet:
        found = copy(self)
        found._learned = math.ceil(share * self._learned)
        return found

    def batch(self, step: int, *, seed: int, size: int, length: int | None = None) -> Batch:
        # An epoch is a permutation that the seed and the epoch's number decide.
        count = self._learned
        places = np.arange(step * size, (step + 1) * size)
        orders = {epoch: random(seed, epoch).permutation(count) for epoch in np.unique(places // count).tolist()}
        chosen = np.array([orders[place // count][place % count] for place in places.tolist()])
        return self._batch(self._held_out + chosen)

    def validation(self, *, size: int, length: int | None = None, batches: int) -> Iterator[Batch]:
        for first in range(0, min(self._held_out, batches * size), size):
            yield self._batch(np.arange(first, min(first + size, self._held_out)))

    def _batch(self, rows: np.ndarray[Any, Any]) -> Batch:
        return Batch({"image": torch.from_numpy(self._images[rows])}, torch.from_numpy(self._labels[rows]))
