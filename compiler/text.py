"""Text and tokens: the tokenizer that came with a model, or bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from archspec.errors import Problem, SpecError


@dataclass(frozen=True)
class Text:
    """Turns text into token ids and back.

    Attributes:
        tokenizer: of the `tokenizers` library; None where a token is a byte.
        stop: ids that end a text.
    """

    tokenizer: Any = None
    stop: frozenset[int] = field(default_factory=frozenset)

    @classmethod
    def of(cls, model: fx.GraphModule) -> Text:
        """That of a model: its ``tokenizer.json``, or bytes.

        Errors:
            SpecError: the tokenizer is damaged, or the model has neither one nor room for all bytes.
        """
        spec: Any = model.spec
        beside: dict[str, bytes] = getattr(model, "beside", {})
        stop = _stop(beside)
        data = beside.get("tokenizer.json")
        if data is None:
            vocab = getattr(spec.interface, "vocab", 0)
            if vocab < 256:
                cause = f"{spec.name} has {vocab} tokens and no tokenizer.json; bytes need 256"
                raise SpecError(Problem(cause, "put the tokenizer.json that it was trained with into its folder"))
            return cls(None, stop)
        from tokenizers import Tokenizer

        try:
            return cls(Tokenizer.from_buffer(data), stop)
        except Exception as error:  # the library raises bare exceptions
            raise SpecError(Problem(f"tokenizer.json cannot be read: {error}", "fetch it again")) from None

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        return list(text.encode()) if self.tokenizer is None else list(self.tokenizer.encode(text).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids; what is no whole character is shown as a replacement sign."""
        if self.tokenizer is None:
            return bytes(token for token in ids if token < 256).decode("utf-8", "replace")
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))


def _stop(beside: dict[str, bytes]) -> frozenset[int]:
    """The end-of-sequence tokens that a model's configuration names."""
    for name in ("generation_config.json", "config.json"):
        if name in beside:
            try:
                found = json.loads(beside[name]).get("eos_token_id")
            except (ValueError, AttributeError):
                continue
            if found is not None:
                return frozenset(found if isinstance(found, list) else [found])
    return frozenset()
