"""Trains one model on one data set by one recipe; killed at any moment, it goes on to bit-identical weights.

That holds because nothing depends on the past but weights and optimizer state: batches, learning rate, dropout and the
numbers that move are functions of the step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from archspec.errors import Problem, SpecError
from compiler import moving
from search import checkpoint
from search.data.batches import Batch, DataSet
from search.fidelity.scaling import BatchLaw, RateLaw
from search.freezing import Freezing
from search.losses import Loss, loss
from search.outcome import TrainingFailed, TrainingResult
from search.recipe import Recipe

if TYPE_CHECKING:
    from search.distributed.group import Group

SAVING = 0.02  # share of the time that checkpoints may take

Progress = Callable[[int, int, float], None]  # steps done, of how many, the last loss in nats


def train(
    model: nn.Module,
    data: DataSet,
    recipe: Recipe,
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
    save_seconds: float = 10.0,
    save_steps: int | None = None,
    until: int | None = None,
    group: Group | None = None,
) -> TrainingResult:
    """Trains a model in place.

    Args:
        recipe: resolved for the model's spec.
        model: called with the batch's inputs by name; returns logits, or a mapping with ``logits`` and losses.
        folder: where checkpoints are kept; a run found there is continued.
        save_seconds: least time between checkpoints, which take at most a fiftieth of all time.
        save_steps: one is also written after every so many steps.
        until: pauses after so many steps of the same schedule: validates, and keeps a checkpoint for the next call.
            A run that is beyond stays where it is.
        group: processes that train it together, each calling this with the model that the group built.

    Errors:
        TrainingFailed: the loss became NaN or infinite, or memory ran out.
        SpecError: the data does not fit the recipe, the folder holds another run, or the disk is full.
    """
    device = device_of(recipe) if group is None else group.device
    forked = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(forked), _memory_errors():
        run = Run(model.to(device), data, recipe, device) if group is None else group.run(model, data, recipe)
        return run.through(folder, progress, save_seconds, save_steps, until or recipe.steps)


class Run:
    """A training run at some step: a model, its optimizer, and what came of it so far."""

    put: Callable[[Tensor, Tensor], object] = staticmethod(Tensor.copy_)  # a stored value into one of its tensors

    def __init__(self, model: nn.Module, data: DataSet, recipe: Recipe, device: torch.device) -> None:
        assert not isinstance(recipe.batch, BatchLaw) and not isinstance(recipe.learning_rate, RateLaw), recipe
        self.model, self.recipe, self.device = model, recipe, device
        self.data = data if recipe.share == 1 else data.part(recipe.share)
        self.optimizer = _optimizer(model, recipe)
        self.freezing = Freezing(model, recipe.freeze, recipe.steps)
        self.numbers = list(moving.numbers(model))
        self.result = TrainingResult(recipe.steps)
        self.step = 0
        self.unread: list[tuple[Tensor, Tensor]] = []  # losses and target counts that are still on the device

    def through(
        self, folder: Path | None, progress: Progress | None, save_seconds: float, save_steps: int | None, until: int
    ) -> TrainingResult:
        if folder is not None:
            self.resume(folder)
        recipe, result = self.recipe, self.result
        goal = min(until, recipe.steps)
        saved = mark = time.perf_counter()
        cpu = time.process_time()
        cost = 0.0  # seconds of the last checkpoint
        # Reading a loss makes an accelerator wait for its queue, so there it is done now and then.
        patience = 1 if self.device.type == "cpu" else 16

        def settle() -> None:
            nonlocal mark, cpu
            self.read_losses()
            result.wall_seconds += time.perf_counter() - mark
            result.cpu_seconds += time.process_time() - cpu
            mark, cpu = time.perf_counter(), time.process_time()

        if self.step >= goal and result.validated(goal) is result.validated(self.step) is None:
            self.validate()  # the checkpoint was not meant as a pause, and may be a later one
            if folder is not None:
                self.save(folder)
            mark, cpu = time.perf_counter(), time.process_time()
        while self.step < goal:
            self.advance()
            if len(self.unread) >= patience:
                self.read_losses()
                if progress:
                    progress(self.step, recipe.steps, result.losses[-1])
            if self.step == goal or (recipe.evaluate_every and self.step % recipe.evaluate_every == 0):
                settle()
                self.validate()
                mark, cpu = time.perf_counter(), time.process_time()  # validation is not training time
            waited = time.perf_counter() - saved
            late = self.agreed(waited >= max(save_seconds, cost / SAVING)) if folder is not None else False
            due = late or (save_steps and self.step % save_steps == 0)
            if folder is not None and (due or self.step == goal < recipe.steps):
                settle()
                self.save(folder)
                saved = time.perf_counter()
                cost = saved - mark
                mark, cpu = saved, time.process_time()
        return self.conclude()

    def conclude(self) -> TrainingResult:
        """The result, with what follows from the last validation."""
        if self.data.bytes_per_target is not None:
            self.result.bits_per_byte = self.result.validation_loss / math.log(2) / self.data.bytes_per_target
        return self.result

    def advance(self) -> None:
        """One optimizer step."""
        recipe = self.recipe
        self.model.train()
        self.freezing.at(self.step)
        moving.move(self.numbers, self.step / recipe.steps, (recipe.seed, self.step))
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.rate(self.step)
        losses, counts = [], []
        for part in range(recipe.accumulate):
            number = self.step * recipe.accumulate + part
            batch = self.data.batch(number, seed=recipe.seed, size=recipe.batch, length=recipe.length)
            torch.manual_seed(recipe.seed * 1_000_003 + number)  # dropout follows the step, not the past
            value = self.learned(batch)
            total = (value.task + value.added) / recipe.accumulate
            total.backward()  # type: ignore[no-untyped-call]
            losses.append(total.detach())
            counts.append(value.targets)
        if recipe.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.unread.append((torch.stack(losses).sum(), torch.stack(counts).sum()))

    def learned(self, batch: Batch) -> Loss:
        """What is learned from a training batch."""
        return self.loss(batch)

    def agreed(self, due: bool) -> bool:
        """Whether something is to be done, where several processes must do the same."""
        return due

    def loss(self, batch: Batch) -> Loss:
        inputs = {name: value.to(self.device) for name, value in batch.inputs.items()}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
            outputs = self.model(**inputs)
        return loss(self.data.interface.name_, outputs, Batch(inputs, batch.targets.to(self.device)))

    def read_losses(self) -> None:
        for value, count in self.unread:
            number = value.item()
            if not math.isfinite(number):
                raise TrainingFailed(f"the loss is {number} at step {len(self.result.losses) + 1}")
            self.result.losses.append(number)
            self.result.targets += int(count.item())
        self.unread.clear()

    def validate(self) -> None:
        """Mean loss and accuracy over the validation targets, without what the model adds in training."""
        recipe = self.recipe
        self.model.eval()
        moving.move(self.numbers, self.step / recipe.steps)
        held_out = self.data.validation(size=recipe.batch, length=recipe.length, batches=recipe.validation_batches)
        with torch.no_grad():
            total, right, targets = self.judged(held_out)
        mean = total / targets
        if not math.isfinite(mean):
            raise TrainingFailed(f"the validation loss is {mean} after step {self.step}")
        self.result.validations.append((self.step, mean, right / targets))

    def judged(self, batches: Iterable[Batch]) -> tuple[float, float, float]:
        """The sum of the losses of all targets, how many were right, and how many there are."""
        total = right = targets = 0.0
        for batch in batches:
            value = self.loss(batch)
            if count := value.targets.item():
                total += value.task.item() * count
                right += value.right.item()
                targets += count
        return total, right, targets

    def save(self, folder: Path) -> None:
        progress = {
            "step": self.step,
            "recipe": self.recipe.model_dump(mode="json"),
            "data": self.data.fingerprint,
            "result": asdict(self.result),
        }
        self.keep(folder, progress)

    def keep(self, folder: Path, progress: dict[str, Any]) -> None:
        """Writes the checkpoint."""
        checkpoint.save(folder, self.model, self.optimizer, progress)

    def resume(self, folder: Path) -> None:
        progress = checkpoint.load(folder, self.model, self.optimizer, self.put)
        if progress is None:
            return
        path = folder / checkpoint.NAME
        now = {**self.recipe.model_dump(mode="json"), "data": self.data.fingerprint}
        then = {**progress["recipe"], "data": progress["data"]}
        pairs = {name: (then.get(name), now.get(name)) for name in {**now, **then}}
        changed = [f"{name} was {before}, is {after}" for name, (before, after) in pairs.items() if before != after]
        if changed:
            hint = "go on with the old values, or name another folder"
            raise SpecError(Problem(f"{path} is of another training run: {'; '.join(changed)}", hint))
        self.step = progress["step"]
        self.result = TrainingResult.from_dict(progress["result"])


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    embeddings = {
        id(parameter)
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) or "embedding" in name
        for parameter in module.parameters()
    }
    decayed: list[Tensor] = []
    free: list[Tensor] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            (free if parameter.dim() < 2 or id(parameter) in embeddings else decayed).append(parameter)
    optimizer = recipe.optimizer
    groups = [{"params": decayed, "weight_decay": optimizer.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=optimizer.betas, eps=optimizer.eps)


def device_of(recipe: Recipe) -> torch.device:
    """The recipe's device.

    Errors:
        SpecError: this computer has none of that name.
    """
    try:
        device = torch.device(recipe.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        cause = f"device {recipe.device} is not there: {str(error).splitlines()[0]}"
        raise SpecError(Problem(cause, "try device: cpu", "train.device")) from None
    return device


@contextmanager
def _memory_errors() -> Iterator[None]:
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise TrainingFailed(f"out of memory: {(str(error) or 'allocation failed').splitlines()[0]}") from error
    except RuntimeError as error:
        if "not enough memory" in str(error) or "can't allocate memory" in str(error):
            raise TrainingFailed(f"out of memory: {str(error).splitlines()[0]}") from error
        raise
