"""Text and tokens: the tokenizer that came with a model, or bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from archspec import blame
from archspec.config_file import parse_config
from archspec.errors import Problem, SpecError

SETTINGS = ("generation_config.json", "config.json")
"""Which tokens begin and end a text; the first that tells decides."""


@dataclass(frozen=True)
class Text:
    """Turns text into token ids and back.

    Attributes:
        tokenizer: of the `tokenizers` library; None where a token is a byte.
        stop: ids that end a text.
        start: ids that the target begins with, of a model that reads a source.
        pad: id that fills up a source.
    """

    tokenizer: Any = None
    stop: frozenset[int] = field(default_factory=frozenset)
    start: tuple[int, ...] = ()
    pad: int = 0

    @classmethod
    def of(cls, model: fx.GraphModule) -> Text:
        """That of a model: its ``tokenizer.json``, or bytes.

        Errors:
            SpecError: a configuration or the tokenizer is damaged, or the model has no tokenizer and no room for all
                bytes.
        """
        spec: Any = model.spec
        beside: dict[str, bytes] = getattr(model, "beside", {})
        said = {n: parse_config(beside[n], n, "fetch it again") for n in SETTINGS if n in beside}
        stop = frozenset(_ids(said, "eos_token_id"))
        pad = next((one for one in _ids(said, "pad_token_id") if one >= 0), 0)
        begin = _ids(said, "decoder_start_token_id") or _ids(said, "bos_token_id")
        start = (*begin[:1], *_ids(said, "forced_bos_token_id")[:1])
        data = beside.get("tokenizer.json")
        if data is None:
            vocab = getattr(spec.interface, "vocab", 0)
            if vocab < 256:
                cause = f"{spec.name} has {vocab} tokens and no tokenizer.json; bytes need 256"
                raise SpecError(Problem(cause, "put the tokenizer.json that it was trained with into its folder"))
            return cls(None, stop, start, pad)
        from tokenizers import Tokenizer

        try:
            return cls(Tokenizer.from_buffer(data), stop, start, pad)
        except Exception as error:  # the library raises bare exceptions
            raise SpecError(Problem(f"tokenizer.json cannot be read: {error}", "fetch it again")) from None

    def encode(self, text: str) -> list[int]:
        """Token ids of a text.

        Errors:
            SpecError: it is no text, or the tokenizer has no token for it.
        """
        try:
            data = text.encode()
            return list(data) if self.tokenizer is None else list(self.tokenizer.encode(text).ids)
        except UnicodeEncodeError:
            raise SpecError(Problem(f"the prompt {text!r} is not UTF-8", "give it as text")) from None
        except Exception as error:  # the library raises bare exceptions
            raise SpecError(Problem(f"the prompt {text!r} has no tokens: {error}", "another tokenizer.json")) from None

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids; what is no whole character is shown as a replacement sign."""
        if self.tokenizer is None:
            return bytes(token for token in ids if token < 256).decode("utf-8", "replace")
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def going_on(self, before: Sequence[int], ids: Sequence[int]) -> str:
        """What token ids add to the text of those before them: a word may begin with a space only behind another."""
        last = before[-8:]  # more would change nothing
        start, whole = self.decode(last), self.decode([*last, *ids])
        return whole[len(start) :] if whole.startswith(start) else self.decode(ids)

    def prompts(self, model: fx.GraphModule, texts: Sequence[str]) -> tuple[list[list[int]], dict[str, Tensor]]:
        """What a model goes on from for some texts: a row of ids each, and the tensors of its source by name.

        A causal model goes on from the text. One with a source reads the text there and goes on from ``start``; where
        that is not known, from the text's last token, as it learns when it is trained on text.

        Errors:
            SpecError: a text is empty, or too long; texts of unlike lengths are a source without padding.
        """
        spec: Any = model.spec
        rows = [self.encode(text) for text in texts]
        if spec.interface.name_ != "seq2seq_lm":
            _checked(texts, rows, spec.interface.length, spec.interface.vocab)
            return rows, {}
        for one in self.start:
            if not 0 <= one < spec.interface.vocab:
                cause = f"every target begins with token {one}; the model knows {spec.interface.vocab}"
                raise SpecError(Problem(cause, f"{' or '.join(SETTINGS)} belongs to another model"))
        firsts = [list(self.start) or row[-1:] for row in rows]
        rows = rows if self.start else [row[:-1] for row in rows]
        most = spec.interface.source_length or spec.interface.length
        known = spec.interface.source_vocab or spec.interface.vocab
        _checked(texts, rows, most, known)
        pad = self.pad if self.pad < known else 0
        longest = max(map(len, rows))
        source = {"source": torch.tensor([row + [pad] * (longest - len(row)) for row in rows])}
        label = spec.interface.carried().get("source", {}).get("valid")
        if label is not None:
            source[label] = torch.tensor([[place < len(row) for place in range(longest)] for row in rows])
        elif any(len(row) < longest for row in rows):
            cause = f"texts of {min(map(len, rows))} to {longest} tokens, and the source of {spec.name} has no padding"
            raise SpecError(Problem(cause, "one text at a time"))
        return firsts, source


def _checked(texts: Sequence[str], rows: Sequence[Sequence[int]], most: int, vocab: int) -> None:
    for text, row in zip(texts, rows, strict=True):
        if not row:
            raise SpecError(Problem(f"the prompt {text!r} has no tokens", "give it some text"))
        if len(row) > most:
            raise SpecError(Problem(f"a prompt of {len(row)} tokens; this model reads at most {most}", "a shorter one"))
        if max(row) >= vocab:
            cause = f"token {max(row)} of {text!r}; the model knows {vocab}"
            raise SpecError(Problem(cause, "tokenizer.json belongs to another model"))


def _ids(said: Mapping[str, Mapping[str, Any]], key: str) -> list[int]:
    """Tokens that a model's configuration names, none if it does not."""
    for name, config in said.items():
        found = config.get(key)
        if found is None:
            continue
        ids = found if isinstance(found, list) else [found]
        if not all(type(one) is int and -(2**31) < one < 2**31 for one in ids):
            raise SpecError(Problem(f"{key} is {blame.shown(found)}, no token", None, name))
        return list(ids)
    return []
