"""What comes of a training run: numbers, or why there are none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


class TrainingFailed(RuntimeError):
    """A candidate cannot be trained: its loss is not a number, or it needs more memory than there is."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass
class TrainingResult:
    """What came of a training run. Losses in nats a target, seconds over all parts of an interrupted run."""

    steps: int
    losses: list[float] = field(default_factory=list)  # of every step, with what the model adds
    validations: list[tuple[int, float, float]] = field(default_factory=list)  # after a step: loss, accuracy
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    targets: int = 0  # tokens or samples learned from
    bits_per_byte: float | None = None

    @property
    def done(self) -> int:
        """Steps that were trained."""
        return len(self.losses)

    def validated(self, step: int) -> tuple[float, float] | None:
        """Loss and accuracy after a step, if they were computed."""
        return next(((loss, accuracy) for at, loss, accuracy in self.validations if at == step), None)

    @property
    def validation_loss(self) -> float:
        return self.validations[-1][1]

    @property
    def validation_accuracy(self) -> float:
        return self.validations[-1][2]

    @property
    def targets_per_second(self) -> float:
        return self.targets / self.wall_seconds

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON."""
        return {
            **asdict(self),
            "validation_loss": self.validation_loss,
            "validation_accuracy": self.validation_accuracy,
            "targets_per_second": self.targets_per_second,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> TrainingResult:
        """From `as_dict`, or from the fields alone."""
        known = {name: stored[name] for name in cls.__dataclass_fields__}
        return cls(**{**known, "validations": [tuple(row) for row in known["validations"]]})
