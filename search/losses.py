"""What a training step minimises: one function for each interface, and the model's own losses beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.errors import Problem, SpecError, did_you_mean
from compiler.loss import over_rounds
from search.data.batches import Batch


class Loss(NamedTuple):
    """Scalars on the model's device: the mean loss in nats, what the model adds, and how many targets were right."""

    task: Tensor
    added: Tensor
    right: Tensor
    targets: Tensor


def per_token(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats of ``[B, T, V]`` against ``[B, T]``; targets of -100 are left out."""
    return F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten())


def per_sample(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats of ``[B, classes]`` against ``[B]``."""
    return F.cross_entropy(logits.float(), targets)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "causal_lm": per_token,
    "masked_lm": per_token,
    "seq2seq_lm": per_token,
    "image_classification": per_sample,
    "sequence_classification": per_sample,
}


def loss(interface: str, outputs: Tensor | Mapping[str, Tensor], batch: Batch) -> Loss:
    """The loss of a model's outputs.

    Args:
        interface: the interface's kind.
        outputs: logits, or a mapping whose first entry, or that named ``logits``, they are; it may have scalars named
            ``loss``, already weighted, and ``exits``, logits of several rounds ``[B, rounds * T, V]``: then the loss is
            the mean over rounds, and not that of the logits.
        batch: the targets, on the device of the outputs.

    Errors:
        SpecError: no loss is known for the interface.
    """
    if interface not in LOSSES:
        hint = did_you_mean(interface, LOSSES)
        raise SpecError(Problem(f"models of interface {interface} have no training loss here", hint, "interface.kind"))
    if isinstance(outputs, Tensor):
        logits, added = outputs, outputs.new_zeros((), dtype=torch.float32)
    else:
        scalars = [value for name, value in outputs.items() if _is_loss(name)]
        logits = outputs["logits"] if "logits" in outputs else next(v for n, v in outputs.items() if not _is_loss(n))
        added = torch.stack([value.float() for value in scalars]).sum() if scalars else logits.new_zeros(())
    counted = batch.targets != -100
    right = (logits.detach().argmax(-1) == batch.targets) & counted
    exits = None if isinstance(outputs, Tensor) else outputs.get("exits")
    task = LOSSES[interface](
        *((logits, batch.targets) if exits is None else (exits, over_rounds(batch.targets, exits)))
    )
    return Loss(task, added, right.sum(), counted.sum())


def _is_loss(name: str) -> bool:
    return name.rsplit(".", 1)[-1] == "loss"
