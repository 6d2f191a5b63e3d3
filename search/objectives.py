"""What a study wants: figures of a spec, of its untrained model, of a trained model, or measured on this computer.

A figure that is known before any training may also be a hard constraint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from search.cost import devices
from search.data.batches import Batch
from search.kinds import Fields, Kind
from search.losses import loss
from search.outcome import TrainingResult
from search.recipe import Recipe

Direction = Literal["minimize", "maximize"]
Stage = Literal["before", "probe", "after"]


@dataclass(frozen=True)
class Probed:
    """What is known of a candidate that is built and initialised but not trained (`search.proxies.probing.probed`)."""

    model: nn.Module  # in eval mode
    interface: str  # its kind
    batch: Batch  # of the training split, on the model's device

    @cached_property
    def weights(self) -> dict[str, nn.Parameter]:
        """Matrices, kernels and tables by name, a tied one once; gains and biases are left out."""
        return {name: value for name, value in self.model.named_parameters() if value.dim() > 1}

    @cached_property
    def gradients(self) -> dict[str, Tensor]:
        """Those of the task's mean loss on the batch by each of the `weights`; zeros where none arrives."""
        weights = {name: value.detach().requires_grad_() for name, value in self.weights.items()}
        with torch.enable_grad():
            outputs = torch.func.functional_call(self.model, weights, (), self.batch.inputs)
            task = loss(self.interface, outputs, self.batch).task
            found = torch.autograd.grad(task, list(weights.values()), allow_unused=True, materialize_grads=True)
        return dict(zip(weights, found, strict=True))


@dataclass(frozen=True)
class Priced:
    """What is known of a candidate before it is trained: its spec, its price, and on demand its untrained model."""

    spec: Any
    recipe: Recipe
    prices: Callable[..., Mapping[str, Any]]  # (spec, *, batch, length, dtype, device, ...) -> the nested figures
    build: Callable[[Any], Probed] | None = None  # of a spec, for figures that take an untrained model

    @cached_property
    def _known(self) -> dict[tuple[Any, ...], Mapping[str, Any]]:
        return {}

    def price(self, **conditions: Any) -> Mapping[str, Any]:
        """The nested cost figures under what `search.cost.price` takes; each combination is computed once."""
        key = tuple(sorted(conditions.items()))
        if key not in self._known:
            self._known[key] = self.prices(self.spec, **conditions)
        return self._known[key]

    @cached_property
    def probed(self) -> Probed:
        """The untrained model, kept until `forget`."""
        if self.build is None:
            raise ValueError("there is no data to build this candidate for")
        return self.build(self.spec)

    def forget(self) -> None:
        """Gives back the memory of the untrained model."""
        self.__dict__.pop("probed", None)


@dataclass(frozen=True)
class Trained:
    """What is known of a candidate after its training."""

    candidate: Priced
    model: nn.Module
    result: TrainingResult
    inputs: Mapping[str, Any]  # of one validation batch, by name; the first dimension is the batch


class Objective(Kind):
    """A figure to minimise or maximise; a subclass has its fields, and one of `before`, `probe` and `after`."""

    role: ClassVar[str] = "objective"
    group: ClassVar[str] = "archspec.objectives"
    registered: ClassVar[dict[str, type[Kind]]] = {}

    worst: float | None = Field(None, description="what nobody wants to be worse than: only what is better counts")

    @property
    def name(self) -> str:
        """The column's name in tables and JSON: the kind, and what is said of it beside the defaults."""
        said = self.model_dump(exclude_defaults=True, exclude={"kind", "worst"})
        extra = [name if value is True else f"{name} {value}" for name, value in said.items()]
        return f"{self.kind_name} ({', '.join(extra)})" if extra else self.kind_name

    @property
    def direction(self) -> Direction:
        return "minimize"

    @property
    def unit(self) -> str:
        """Of the figure; empty for counts and shares."""
        return ""

    @property
    def needs_training(self) -> bool:
        """Whether the figure can be told only after training, by `after`."""
        return type(self).after is not Objective.after

    def tabled(self, recipe: Recipe) -> Tabled | None:
        """Where a table of encoded candidates has the figure; None if none has."""
        return None

    @property
    def stage(self) -> Stage:
        """The method that tells the figure, and so when it is known."""
        if self.needs_training:
            return "after"
        return "before" if type(self).probe is Objective.probe else "probe"

    def before(self, candidate: Priced) -> float:
        """The figure of a candidate that is not trained; where it takes more than the spec, that of `probe`."""
        return self.probe(candidate.probed)

    def probe(self, probed: Probed) -> float:
        """The figure of an untrained model; takes a pass or a few."""
        raise NotImplementedError

    def after(self, trained: Trained) -> float:
        """The figure of a trained model."""
        raise NotImplementedError


class Figure(NamedTuple):
    """Where a cost stands in the nested figures, and in a table of encoded candidates."""

    path: tuple[str, ...]
    unit: str
    column: str
    times: float = 1.0  # the column


FIGURES = {
    "parameters": Figure(("parameters", "total"), "", "parameters"),
    "active_parameters": Figure(("parameters", "active"), "", "active"),
    "flops": Figure(("flops", "forward"), "FLOP", "forward"),
    "training_flops": Figure(("flops", "training_step"), "FLOP", "training_step"),
    "macs": Figure(("macs", "forward"), "MAC", "forward", 0.5),
    "memory": Figure(("memory", "peak_inference"), "bytes", "peak_inference"),
    "training_memory": Figure(("memory", "peak_training"), "bytes", "peak_training"),
    "weights": Figure(("memory", "weights"), "bytes", "weights"),
    "cache": Figure(("memory", "cache_per_token"), "bytes", "cache_per_token"),
}


class Tabled(NamedTuple):
    """Where a figure stands in a `search.cost.table.Table`."""

    conditions: Mapping[str, Any]  # that the table takes
    column: str
    times: float = 1.0


class CostFigure(Objective):
    """An exact figure of a spec.

    Example:
        objectives: [validation_loss, {kind: memory, batch: 8, length: 512}]
    """

    kind: Literal[
        "parameters",
        "active_parameters",
        "flops",
        "training_flops",
        "macs",
        "memory",
        "training_memory",
        "weights",
        "cache",
    ]
    batch: int = Field(1, ge=1)
    length: int | None = Field(None, ge=1, description="tokens; without it, those of training")
    dtype: str = "float32"

    @property
    def unit(self) -> str:
        return FIGURES[self.kind].unit

    def tabled(self, recipe: Recipe) -> Tabled:
        length = self.length or recipe.length
        device = devices.names()[0]  # these figures are the same on all
        conditions = {"batch": self.batch, "length": length, "dtype": self.dtype, "device": device}
        return Tabled(conditions, FIGURES[self.kind].column, FIGURES[self.kind].times)

    def before(self, candidate: Priced) -> float:
        value: Any = candidate.price(**self.tabled(candidate.recipe).conditions)
        for part in FIGURES[self.kind].path:
            value = value[part]
        return float(value)


class Latency(Objective):
    """Milliseconds of a forward pass over the whole batch (prefill), of a decoded token, or of a training step.

    They are predicted for a device; a prefill can also be measured on this computer.

    Example:
        objectives: [validation_loss, {kind: latency, device: l4, batch: 8}]
    """

    kind: Literal["latency"] = "latency"
    measured: bool = Field(False, description="timed on the computer and device of training, not predicted")
    phase: Literal["prefill", "decode", "step"] = "prefill"
    context: int | None = Field(None, ge=0, description="tokens before the one that is decoded; all but one by default")
    device: str = Field("local", description="device whose latency is predicted")
    batch: int = Field(1, ge=1)
    length: int | None = Field(None, ge=1, description="tokens; without it, those of training")
    dtype: str = "float32"
    repeats: int = Field(20, ge=3, description="timed passes of a measurement")
    threads: int = Field(1, ge=1, description="of a measurement; several are easily disturbed by other work")

    @model_validator(mode="after")
    def _one_device(self) -> Latency:
        if self.measured and self.device != "local":
            raise ValueError(f"latency on {self.device} can be predicted, not measured, here")
        if self.measured and self.phase != "prefill":
            raise ValueError(f"of a {self.phase} the latency is predicted, not measured; leave measured out")
        if self.context is not None and self.phase != "decode":
            raise ValueError("a context is of phase: decode")
        return self

    @property
    def unit(self) -> str:
        return "ms"

    @property
    def needs_training(self) -> bool:
        return self.measured

    def tabled(self, recipe: Recipe) -> Tabled | None:
        return None if self.measured else Tabled(self._conditions(recipe), "latency_ms")

    def _conditions(self, recipe: Recipe) -> dict[str, Any]:
        under = {"phase": "decode", "context": self.context} if self.phase == "decode" else {"phase": self.phase}
        length = self.length or recipe.length
        return {"batch": self.batch, "length": length, "dtype": self.dtype, "device": self.device, **under}

    def before(self, candidate: Priced) -> float:
        price = candidate.price(**self._conditions(candidate.recipe))
        return float(price["latency_ms"][self.phase])

    def after(self, trained: Trained) -> float:
        from search.latency import measure, resized

        inputs = resized(trained.inputs, batch=self.batch, length=self.length)
        return measure([trained.model], inputs, repeats=self.repeats, threads=self.threads)[0].median_ms


class Validation(Objective):
    """A figure of the trained model on the validation split: loss in nats a target, or the share predicted right."""

    kind: Literal["validation_loss", "validation_accuracy", "bits_per_byte"]

    @property
    def direction(self) -> Direction:
        return "maximize" if self.kind == "validation_accuracy" else "minimize"

    @property
    def unit(self) -> str:
        return {"validation_loss": "nats", "bits_per_byte": "bits"}.get(self.kind, "")

    def after(self, trained: Trained) -> float:
        value = getattr(trained.result, self.kind)
        if value is None:
            raise ValueError(f"{self.kind} is not known for this data")
        return float(value)


class Bound(Fields):
    """A hard bound on a figure that is known before training: what breaks it never becomes a trial."""

    objective: Objective
    at_most: float | None = None
    at_least: float | None = None

    def allows(self, value: float) -> bool:
        return (self.at_most is None or value <= self.at_most) and (self.at_least is None or value >= self.at_least)

    def __str__(self) -> str:
        bounds = (("at most", self.at_most), ("at least", self.at_least))
        said = [f"{word} {bound:,g}" for word, bound in bounds if bound is not None]
        return f"{self.objective.name} {' and '.join(said)}"
