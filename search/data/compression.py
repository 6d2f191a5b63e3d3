"""Compression: a sequence of random tokens is to be told again from what was kept of it."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from search.data.synthetic import UNSCORED, Sequence, Synthetic


class Compression(Synthetic):
    """Random tokens, then as many times a token that asks for them, at which they are scored in their order.

    The last token of the vocabulary asks. MAD has a decoder of its own tell all tokens from the state of the last one;
    a causal model tells them itself here. What it keeps is compressed only where a mixer keeps a state of fixed size:
    attention may look back at every token.

    Example:
        data: {kind: compression, vocab: 16, length: 64}
    """

    kind: Literal["compression"] = "compression"
    length: int = Field(
        64, ge=1, description="tokens of a sequence, half of them to be told; train.length overrides it"
    )

    @property
    def least(self) -> int:
        return 2

    @property
    def chance(self) -> float:
        return 1 / (self.vocab - 1)

    def sequence(self, chance: np.random.Generator, *, length: int, held_out: bool) -> Sequence:
        count = length // 2
        told = chance.integers(0, self.vocab - 1, count)
        tokens, targets = np.full(length, self.vocab - 1), np.full(length, UNSCORED)
        tokens[length - 2 * count : length - count] = told
        targets[length - count :] = told
        return Sequence(tokens, targets)
