"""Heads: from tokens to what the model is asked for."""

from typing import Annotated, Literal

from pydantic import Field

from archspec.errors import Refused
from archspec.kind import Free, Kind, Real, Width
from archspec.place import Place
from archspec.streams import Stream


class LmHead(Kind, kind="lm_head"):
    """Logits over the vocabulary for each token.

    With ``tied`` it uses the token embedding's table (Press and Wolf 2017, arXiv 1608.05859).
    """

    incremental = True
    vocab: Width | None = Field(None, description="the interface's vocabulary by default")
    tied: bool | str = Field(
        False, description="uses the token embedding's table; the name of the embedding, where several fit"
    )
    bias: bool | Literal["fixed"] = Field(False, description="on the logits; a fixed one is stored and never trained")
    softcap: Annotated[float, Field(gt=0)] | None = Field(None, description="logits l become cap * tanh(l / cap)")
    scale: Real = Field(1.0, description="factor on the logits")
    std: Annotated[Real, Free()] | None = None

    def infer(self, at: Place) -> Stream:
        x = at.one()
        vocab = self.vocab or getattr(at.interface, "vocab", None)
        if vocab is None:
            raise Refused("vocab", "this interface has no vocabulary", "vocab: 256")
        if x.content != "features":
            raise Refused("", f"a head reads features, not {x}")
        if self.tied:
            at.tie(x.width, vocab, self.tied if isinstance(self.tied, str) else None)
        return x.wide(vocab)


class Classifier(Kind, kind="classifier"):
    """A linear map from the features of a pooled sample to class logits."""

    classes: Width | None = Field(None, description="the interface's classes by default")
    bias: bool = True

    def infer(self, at: Place) -> Stream:
        x = at.one()
        classes = self.classes or getattr(at.interface, "classes", None)
        if classes is None:
            raise Refused("classes", "this interface has no classes", "classes: 10")
        if x.spans and x.count != 1:
            raise Refused("", f"a classifier reads one vector a sample, not {x}", "add a pool before it")
        return Stream(classes, ())
