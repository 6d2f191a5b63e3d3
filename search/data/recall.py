"""Recall in context: keys and values stand side by side, and a key that comes again is followed by the same value."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from search.data.synthetic import UNSCORED, Numbers, Sequence, Synthetic


def _keys(vocab: int) -> int:
    """How many of the tokens are keys; the others are values."""
    return vocab // 2


class InContextRecall(Synthetic):
    """Pairs of a key and its value, drawn anew for each sequence; scored are the values of keys that were there before.

    The first half of the tokens are keys, the others values.

    Example:
        data: {kind: in_context_recall, vocab: 16, length: 128}
    """

    kind: Literal["in_context_recall"] = "in_context_recall"

    @property
    def least(self) -> int:
        return 3

    @property
    def chance(self) -> float:
        return 1 / (self.vocab - _keys(self.vocab))

    def sequence(self, chance: np.random.Generator, *, length: int, held_out: bool) -> Sequence:
        return _pairs(chance, length, self.vocab, noise=0, share=0.0)


class NoisyRecall(Synthetic):
    """Recall in context with pairs of noise between: tokens of their own that say nothing.

    The last `noise` tokens of the vocabulary are noise; of the others the first half are keys, the rest values.

    Example:
        data: {kind: noisy_recall, vocab: 32, noise: 16, share: 0.2, length: 128}
    """

    kind: Literal["noisy_recall"] = "noisy_recall"
    vocab: int = Field(32, ge=4, description="tokens, those of noise among them")
    noise: int = Field(16, ge=1, description="tokens that are noise")
    share: float = Field(0.2, ge=0, lt=1, description="of pairs that are noise")

    @model_validator(mode="after")
    def _keys_are_left(self) -> NoisyRecall:
        if self.vocab - self.noise < 4:
            raise ValueError(f"of {self.vocab} tokens {self.noise} are noise; keys and values need 4")
        return self

    @property
    def least(self) -> int:
        return 3

    @property
    def chance(self) -> float:
        left = self.vocab - self.noise
        return 1 / (left - _keys(left))

    def sequence(self, chance: np.random.Generator, *, length: int, held_out: bool) -> Sequence:
        return _pairs(chance, length, self.vocab - self.noise, noise=self.noise, share=self.share)


def _pairs(chance: np.random.Generator, length: int, vocab: int, *, noise: int, share: float) -> Sequence:
    """A sequence whose last whole pair is one that was there before, so that something is scored."""
    keys, pairs, last = _keys(vocab), length // 2 + 1, (length + 1) // 2 - 1
    facts = chance.integers(keys, vocab, keys)
    key = chance.integers(0, keys, pairs)
    noisy = chance.random(pairs) < share
    noisy[[0, last]] = False
    key[last] = chance.choice(key[:last][~noisy[:last]])
    tokens = np.stack((key, facts[key]), axis=1)
    tokens[noisy] = chance.integers(vocab, vocab + max(1, noise), (int(noisy.sum()), 2))
    scored = np.zeros((pairs, 2), dtype=bool)
    told = np.flatnonzero(~noisy)
    scored[told, 1] = True
    scored[told[np.unique(key[told], return_index=True)[1]], 1] = False  # where a key stands first
    return _shifted(tokens.ravel()[: length + 1], scored.ravel()[: length + 1])


class FuzzyRecall(Synthetic):
    """Recall in context of keys and values of several tokens; scored are the values of keys that came before.

    Keys have 1 to `key` tokens in training and `key` in validation, values 1 to `value`, none twice in one. The first
    half of the tokens are keys', the next values'; the last token fills up the beginning.

    Example:
        data: {kind: fuzzy_recall, vocab: 16, key: 3, value: 3, length: 128}
    """

    kind: Literal["fuzzy_recall"] = "fuzzy_recall"
    key: int = Field(3, ge=1, description="tokens of a key, at most")
    value: int = Field(3, ge=1, description="tokens of a value, at most")

    @model_validator(mode="after")
    def _motifs_fit(self) -> FuzzyRecall:
        keys = _keys(self.vocab - 1)
        if self.key > keys or self.value > self.vocab - 1 - keys:
            raise ValueError(
                f"{self.vocab} tokens make keys of {keys} and values of {self.vocab - 1 - keys}, none twice"
            )
        return self

    @property
    def least(self) -> int:
        return 2 * (self.key + self.value)

    @property
    def chance(self) -> float:
        return 1 / (self.vocab - 1 - _keys(self.vocab - 1))

    def sequence(self, chance: np.random.Generator, *, length: int, held_out: bool) -> Sequence:
        filler, keys = self.vocab - 1, _keys(self.vocab - 1)

        def motif(low: int, high: int, least: int, most: int) -> tuple[int, ...]:
            size = int(chance.integers(least, most + 1))
            return tuple((low + chance.permutation(high - low)[:size]).tolist())

        def drawn() -> tuple[tuple[int, ...], tuple[int, ...]]:
            return motif(0, keys, self.key if held_out else 1, self.key), motif(keys, filler, 1, self.value)

        asked, answer = drawn()
        known, tokens, scored = {asked: answer}, list[int](), list[bool]()
        seen: set[tuple[int, ...]] = set()

        def tell(key: tuple[int, ...], value: tuple[int, ...]) -> None:
            tokens.extend((*key, *value))
            scored.extend((*[False] * len(key), *[key in seen] * len(value)))
            seen.add(key)

        room = length + 1 - len(asked) - len(answer)  # before the last pair, which is one that was there
        place = int(chance.integers(0, max(1, room)))
        longest = self.key + self.value
        while (left := room - len(tokens)) >= longest:
            key, value = drawn()
            if asked not in seen and (len(tokens) >= place or left < 2 * longest):
                key = asked
            tell(key, known.setdefault(key, value))
        tell(asked, answer)
        missing = length + 1 - len(tokens)
        filled = np.array([filler] * missing + tokens)
        return _shifted(filled, np.array([False] * missing + scored))


def _shifted(tokens: Numbers, scored: Numbers) -> Sequence:
    """Each token is what the one before is to answer."""
    return Sequence(tokens[:-1], np.where(scored, tokens, UNSCORED)[1:])
