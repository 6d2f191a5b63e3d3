"""A training recipe: everything that decides a trained model beside its spec and its data."""

from __future__ import annotations

import hashlib
import math
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Strict,
    Tag,
    model_serializer,
)

from archspec.spec import Spec
from search.fidelity import scaling
from search.fidelity.scaling import BatchLaw, RateLaw
from search.freezing import Frozen
from search.kinds import Fields

Share = Annotated[float, Field(ge=0, lt=1)]


def _form(said: Any) -> str:
    """Which of the forms a number that a law may give was written in, so that errors are told of that one alone."""
    return "bare" if said == "step_law" else "law" if isinstance(said, (dict, RateLaw, BatchLaw)) else "number"


def _pattern(said: Any) -> Any:
    """A pattern alone means what it names, from the beginning."""
    return {"parameters": said} if isinstance(said, str) else said


Bare = Annotated[Literal["step_law"], Tag("bare")]
Rate = Annotated[
    Annotated[float, Field(gt=0), Tag("number")] | Annotated[RateLaw, Tag("law")] | Bare,
    Discriminator(_form),
    AfterValidator(lambda said: RateLaw() if said == "step_law" else said),
]
Batch = Annotated[
    Annotated[int, Field(ge=1), Tag("number")] | Annotated[BatchLaw, Tag("law")] | Bare,
    Discriminator(_form),
    AfterValidator(lambda said: BatchLaw() if said == "step_law" else said),
]


class AdamW(Fields):
    """Loshchilov and Hutter 2019, "Decoupled weight decay regularization", arXiv 1711.05101."""

    kind: Literal["adamw"] = "adamw"
    betas: Annotated[tuple[Share, Share], Strict(False)] = (0.9, 0.95)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.1, ge=0, description="not of norms, biases and embeddings")


class Schedule(Fields):
    """Linear warm-up, then a cosine (Loshchilov and Hutter 2017, "SGDR", arXiv 1608.03983)."""

    warmup: float = Field(0.1, ge=0, le=1, description="share of the steps")
    final: float = Field(0.1, ge=0, le=1, description="learning rate at the end, as a share of the highest")


class Recipe(Fields):
    """How a model is trained.

    ``step_law`` for the batch or the learning rate is a number only for a spec: `resolved`.

    Example:
        train: {steps: 600, batch: 16, length: 128, learning_rate: 3e-3}
    """

    steps: int = Field(100, ge=1, description="optimizer steps")
    batch: Batch = Field(16, description="sequences or images of one forward pass; or step_law")
    length: int | None = Field(None, ge=1, description="tokens of a sequence; without it, the interface's")
    share: float = Field(1.0, gt=0, le=1, description="of the training data that is read")
    accumulate: int = Field(1, ge=1, description="forward passes an optimizer step")
    optimizer: AdamW = AdamW()
    learning_rate: Rate = Field(3e-3, description="the highest; or step_law")
    schedule: Schedule = Schedule()
    clip: float | None = Field(1.0, gt=0, description="largest norm of the gradient")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="bfloat16: autocast, weights in float32")
    seed: int = Field(0, ge=0, description="of initialisation, batches and dropout")
    freeze: list[Annotated[Frozen, BeforeValidator(_pattern, json_schema_input_type=str | Frozen)]] | None = Field(
        None, description="parameters that do not learn, as **.router, or {parameters: embedding, after: 0.2}"
    )
    evaluate_every: int | None = Field(None, ge=1, description="steps between validations; one is at the end anyway")
    validation_batches: int = Field(16, ge=1, description="at most so many")
    device: str = "cpu"

    def resolved(self, spec: Spec) -> Recipe:
        """The recipe of a spec: what a law decides becomes a number.

        Errors:
            SpecError: a law counts tokens, and the model reads none.
        """
        changes: dict[str, Any] = {}
        if isinstance(self.batch, BatchLaw):
            sequences = self.batch.tokens(self.steps) / (scaling.length(spec, self.length) * self.accumulate)
            changes["batch"] = max(1, round(sequences))
        if isinstance(self.learning_rate, RateLaw):
            batch = changes.get("batch", self.batch)
            tokens = self.steps * batch * self.accumulate * scaling.length(spec, self.length)
            changes["learning_rate"] = self.learning_rate.rate(scaling.parameters(spec), tokens)
        return self.model_copy(update=changes) if changes else self

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0, of a recipe that is resolved."""
        warm = self.schedule.warmup * self.steps
        if step + 1 <= warm:
            return self.learning_rate * (step + 1) / warm
        done = (step + 1 - warm) / max(1.0, self.steps - warm)
        cosine = 0.5 * (1 + math.cos(math.pi * done))
        return self.learning_rate * (self.schedule.final + (1 - self.schedule.final) * cosine)

    @property
    def digest(self) -> str:
        """A hash of all fields."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    @model_serializer(mode="wrap")
    def _said(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """All fields; what is frozen only where something is, so that recipes stay what they were before any could."""
        said: dict[str, Any] = plain(self)
        if self.freeze is None:
            said.pop("freeze", None)
        return said
