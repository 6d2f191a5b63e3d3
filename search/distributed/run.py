"""A training run that several processes share: the steps of one process with the whole batch, up to rounding.

Each learns from its rows; the loss is the mean over the targets of all, the gradient is clipped as a whole. Dropout
alone differs, as each process draws for its own rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from search import checkpoint
from search.data.batches import Batch, DataSet
from search.distributed import sharding
from search.losses import Loss
from search.recipe import Recipe
from search.train import Run

if TYPE_CHECKING:
    from search.distributed.group import Group


class SharedRun(Run):
    """This process's part of a run."""

    put = staticmethod(sharding.put)

    def __init__(self, model: nn.Module, data: DataSet, recipe: Recipe, group: Group) -> None:
        super().__init__(model, data, recipe, group.device)
        self.group = group

    def agreed(self, due: bool) -> bool:
        return self.group.agreed(due)

    def learned(self, batch: Batch) -> Loss:
        torch.manual_seed(torch.initial_seed() + (self.group.rank << 40))  # noise of one's own
        rows = self.group.rows(batch)
        value = self.loss(rows)
        # Gradients and losses are averaged over the processes, some of which have more targets than others.
        mine, every = (int((part.targets != -100).sum()) for part in (rows, batch))
        task = value.task if mine else torch.where(value.targets > 0, value.task, 0.0)  # else the mean of none
        return value._replace(task=task * (self.group.size * mine / every))

    def read_losses(self) -> None:
        if self.unread:
            values = torch.stack([value for value, _ in self.unread])
            counts = torch.stack([count for _, count in self.unread])
            means = self.group.total(values) / self.group.size
            self.unread = list(zip(means, self.group.total(counts), strict=True))
        super().read_losses()

    def judged(self, batches: Iterable[Batch]) -> tuple[float, float, float]:
        sums = torch.tensor(super().judged(map(self.group.rows, batches)), dtype=torch.float64)
        total, right, targets = self.group.total(sums).tolist()
        return total, right, targets

    def keep(self, folder: Path, progress: dict[str, Any]) -> None:
        tensors = checkpoint.tensors(self.model, self.optimizer)
        if self.group.rank:
            sharding.hand_over(tensors.values())
        else:
            checkpoint.write(folder, tensors, progress, sharding.whole)
