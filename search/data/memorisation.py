"""Memorisation: facts that are the same in every sequence, and that no sequence tells."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from search.data.batches import random
from search.data.synthetic import UNSCORED, Sequence, Synthetic

FACTS = 2**32  # the key of the generator that decides them


class Memorisation(Synthetic):
    """Keys, each followed by a token that asks for its value, which the weights must know: no sequence has one.

    The last token of the vocabulary asks; the first half of the others are keys, the rest values. Both splits ask for
    the same facts, in other sequences.

    Example:
        data: {kind: memorisation, vocab: 256, length: 32}
    """

    kind: Literal["memorisation"] = "memorisation"
    vocab: int = Field(256, ge=4, description="tokens, the one that asks among them")
    length: int = Field(32, ge=1, description="tokens of a sequence; train.length overrides it")
    examples: int = Field(256, ge=1, description="different training sequences; an epoch has so many")

    @property
    def least(self) -> int:
        return 2

    @property
    def chance(self) -> float:
        return 1 / (self.vocab - 1 - self._keys)

    @property
    def _keys(self) -> int:
        return (self.vocab - 1) // 2

    def sequence(self, chance: np.random.Generator, *, length: int, held_out: bool) -> Sequence:
        keys = self._keys
        facts = keys + random(FACTS, self.vocab).permutation(self.vocab - 1 - keys)[:keys]  # no value twice
        tokens, targets = np.full(length, self.vocab - 1), np.full(length, UNSCORED)
        asked = chance.integers(0, keys, length // 2)
        tokens[: 2 * len(asked) : 2] = asked
        targets[1::2] = facts[asked]
        if length % 2:  # a key that nothing asks for
            tokens[-1] = chance.integers(0, keys)
        return Sequence(tokens, targets)
