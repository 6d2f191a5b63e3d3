"""Selective copying: tokens that stand somewhere among blanks are to be told in their order."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from search.data.synthetic import UNSCORED, Sequence, Synthetic


class SelectiveCopying(Synthetic):
    """Tokens at random places among blanks, then a token that asks for them, then blanks, where they are scored.

    The last token of the vocabulary asks, the one before is the blank.

    Example:
        data: {kind: selective_copying, vocab: 16, copied: 16, length: 256}
    """

    kind: Literal["selective_copying"] = "selective_copying"
    length: int = Field(256, ge=1, description="tokens of a sequence; train.length overrides it")
    copied: int = Field(16, ge=1, description="tokens to copy")

    @property
    def least(self) -> int:
        return 2 * self.copied + 1

    @property
    def chance(self) -> float:
        return 1 / (self.vocab - 2)

    def sequence(self, chance: np.random.Generator, *, length: int, held_out: bool) -> Sequence:
        copied = chance.integers(0, self.vocab - 2, self.copied)
        asks = length - self.copied - 1
        tokens = np.full(length, self.vocab - 2)
        tokens[np.sort(chance.permutation(asks)[: self.copied])] = copied
        tokens[asks] = self.vocab - 1
        targets = np.full(length, UNSCORED)
        targets[asks + 1 :] = copied
        return Sequence(tokens, targets)
