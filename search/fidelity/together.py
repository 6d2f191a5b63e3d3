"""Models of equal shapes trained together: one pass over stacked weights, one update of all.

For tiny models a step is mostly the time to start operators; M models in one pass start them once. Each member trains
as it would alone, on batches, dropout, learning rate and clipping of its own, up to the rounding of batched products:
its checkpoint is one of a run alone, and may go on as one.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from search.data.batches import Batch, DataSet
from search.fidelity.members import Members
from search.losses import loss
from search.outcome import TrainingFailed, TrainingResult
from search.recipe import Recipe
from search.train import Progress, Run, device_of


def train_together(
    models: Sequence[nn.Module],
    data: DataSet,
    recipes: Sequence[Recipe],
    *,
    folders: Sequence[Path] | None = None,
    progress: Progress | None = None,
    until: int | None = None,
    save_seconds: float = 10.0,
) -> list[TrainingResult | TrainingFailed]:
    """Trains models in place; `search.fidelity.alike.reason` tells beforehand whether it can be done.

    Args:
        recipes: resolved, one for each model; they differ in seed and learning rate alone.
        folders: where checkpoints are kept, one for each model; there is one at the end too, for `search.fit` to go on
            from.
        progress: told the mean loss.
        until: pauses after so many steps, as `search.train.train` does.

    Returns:
        In place of a result why there is none, where a loss became NaN or infinite; the others do not suffer from it.

    Errors:
        SpecError: a folder holds another run, or the disk is full.
    """
    with torch.random.fork_rng([]):
        group = Together(models, data, recipes, folders)
        return group.through(min(until or recipes[0].steps, recipes[0].steps), progress, save_seconds)


class Together:
    """Runs that advance together: weights and optimizer states of a member are rows of tensors that hold all of them.

    Errors:
        ValueError: the folders hold checkpoints of different steps.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        data: DataSet,
        recipes: Sequence[Recipe],
        folders: Sequence[Path] | None = None,
    ) -> None:
        self.folders, self.failed = folders, dict[int, TrainingFailed]()
        self.runs = [run_of(m, data, r) for m, r in zip(models, recipes, strict=True)]
        for run, folder in zip(self.runs, folders or [], strict=bool(folders)):
            run.resume(folder)
        if len(steps := sorted({run.step for run in self.runs})) > 1:
            raise ValueError(f"the runs are at steps {', '.join(map(str, steps))}; bring them to one first")
        self.data, self.recipe, self.count = data, recipes[0], len(self.runs)
        rates = {name: [m.get_submodule(name).p for m in models] for name, part in models[0].named_modules()
                 if isinstance(part, nn.Dropout)}  # fmt: skip
        self.device = device_of(self.recipe)
        self.members = Members(copy.deepcopy(models[0]).to(self.device), rates, self.count)
        self._hold()

    def _hold(self) -> None:
        """Moves the members' numbers into rows."""
        parameters = [dict(run.model.named_parameters()) for run in self.runs]
        names = {id(parameter): name for name, parameter in parameters[0].items()}
        groups = self.runs[0].optimizer.param_groups
        sizes = [sum(parameter.numel() for parameter in group["params"]) for group in groups]
        self.parts = [(group["weight_decay"], size) for group, size in zip(groups, sizes, strict=True)]
        self.values, self.gradients, self.first, self.second = (
            torch.zeros(self.count, sum(sizes), device=self.device) for _ in range(4)
        )
        self.weights: dict[str, Tensor] = {}
        self.rows: list[Tensor] = []
        start = 0
        for weight in (parameter for group in groups for parameter in group["params"]):
            name, shape = names[id(weight)], (self.count, *weight.shape)
            rows = [x[:, start : start + weight.numel()] for x in (self.values, self.first, self.second)]
            for number, run in enumerate(self.runs):
                own = parameters[number][name]
                state = run.optimizer.state[own]
                state.setdefault("step", torch.tensor(float(run.step)))
                held = [own.detach(), state.get("exp_avg"), state.get("exp_avg_sq")]
                views = [row[number].view(own.shape) for row in rows]
                for view, value in zip(views, held, strict=True):
                    if value is not None:
                        view.copy_(value)
                own.data, state["exp_avg"], state["exp_avg_sq"] = views
            stacked = rows[0].view(shape).detach()
            self.weights[name] = stacked.requires_grad_()
            self.rows.append(self.gradients[:, start : start + weight.numel()].view(shape))
            start += weight.numel()
        states = [run.model.state_dict(keep_vars=True) for run in self.runs]
        trained = {id(parameter) for parameter in self.runs[0].model.parameters() if parameter.requires_grad}
        self.buffers = {
            name: torch.stack([state[name].detach() for state in states])
            for name, value in states[0].items()
            if id(value) not in trained  # nor a trained weight under a second name
        }

    def _release(self) -> None:
        """Gives each member memory of its own again."""
        for number, run in enumerate(self.runs):
            state = run.model.state_dict(keep_vars=True)
            with torch.no_grad():
                for name, values in self.buffers.items():
                    state[name].copy_(values[number])
            for group in run.optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.data = parameter.data.clone()
                    state = run.optimizer.state[parameter]
                    state.update(exp_avg=state["exp_avg"].clone(), exp_avg_sq=state["exp_avg_sq"].clone())
                    state["step"] = torch.tensor(float(run.step))

    def through(
        self, goal: int, progress: Progress | None, save_seconds: float
    ) -> list[TrainingResult | TrainingFailed]:
        """Trains to a step, validates there, and saves."""
        recipe, failed = self.recipe, self.failed
        saved = mark = time.perf_counter()
        cpu = time.process_time()
        while self.runs[0].step < goal and len(failed) < self.count:
            self.advance()
            step = self.runs[0].step
            share = 1 / self.count
            self._each(Run.read_losses)
            for run in self.runs:
                run.result.wall_seconds += (time.perf_counter() - mark) * share
                run.result.cpu_seconds += (time.process_time() - cpu) * share
            if progress and self._well():
                progress(step, recipe.steps, sum(run.result.losses[-1] for run in self._well()) / len(self._well()))
            if step == goal or (recipe.evaluate_every and step % recipe.evaluate_every == 0):
                self._release()
                self._each(Run.validate)
                self._hold()
            if self.folders is not None and (step == goal or time.perf_counter() - saved >= save_seconds):
                self._release()
                for number, folder in enumerate(self.folders):
                    if number not in failed:
                        self.runs[number].save(folder)
                self._hold()
                saved = time.perf_counter()
            mark, cpu = time.perf_counter(), time.process_time()
        self._release()
        self._each(Run.conclude)
        return [failed.get(number, run.result) for number, run in enumerate(self.runs)]

    def _each(self, act: Callable[[Run], object]) -> None:
        """Does something with every run that has not failed."""
        for number, run in enumerate(self.runs):
            if number not in self.failed:
                try:
                    act(run)
                except TrainingFailed as error:
                    self.failed[number] = error

    def _well(self) -> list[Run]:
        return [run for number, run in enumerate(self.runs) if number not in self.failed]

    def advance(self) -> None:
        """One optimizer step of every member."""
        recipe, step = self.recipe, self.runs[0].step
        self.members.model.train()
        losses, counts = [], []
        for part in range(recipe.accumulate):
            values = self.losses(step * recipe.accumulate + part)
            total = torch.stack([value.task + value.added for value in values]) / recipe.accumulate
            self.backward(total)
            losses.append(total.detach())
            counts.append(torch.stack([value.targets for value in values]))
        if recipe.clip is not None:
            norms = torch.linalg.vector_norm(self.gradients, dim=1)
            self.gradients.mul_((recipe.clip / (norms + 1e-6)).clamp(max=1.0)[:, None])
        self._update(step)
        self.gradients.zero_()
        for run, value, count in zip(self.runs, torch.stack(losses).sum(0), torch.stack(counts).sum(0), strict=True):
            run.step += 1
            run.unread.append((value, count))

    def backward(self, total: Tensor) -> None:
        """Adds the gradients of each member's loss."""
        found = torch.autograd.grad(total.sum(), list(self.weights.values()), allow_unused=True)
        idle = next((name for name, gradient in zip(self.weights, found, strict=True) if gradient is None), None)
        if idle is not None:  # alone, the optimizer would leave it as it is
            raise RuntimeError(f"{idle} takes no part in training")
        torch._foreach_add_(self.rows, list(found))

    def losses(self, number: int) -> list[Any]:
        """The loss of each member on its training batch of a number."""
        recipe = self.recipe
        batches = [
            self.data.batch(number, seed=run.recipe.seed, size=recipe.batch, length=recipe.length) for run in self.runs
        ]
        inputs = {name: torch.stack([b.inputs[name] for b in batches]).to(self.device) for name in batches[0].inputs}
        targets = torch.stack([batch.targets for batch in batches]).to(self.device).unbind()
        seeds = [run.recipe.seed * 1_000_003 + number for run in self.runs]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            outputs = self.members({**self.weights, **self.buffers}, inputs, seeds)
        interface = self.data.interface.name_
        return [loss(interface, out, Batch({}, each)) for out, each in zip(outputs, targets, strict=True)]

    def _update(self, step: int) -> None:
        """AdamW, as torch does it for one."""
        how = self.recipe.optimizer
        rates = torch.tensor([run.recipe.rate(step) for run in self.runs], dtype=torch.float64, device=self.device)[
            :, None
        ]
        one, two = how.betas
        first, second = 1 - one ** (step + 1), 1 - two ** (step + 1)
        start = 0
        for decay, size in self.parts:
            rows = slice(None), slice(start, start + size)
            value, gradient, mean, square = (x[rows] for x in (self.values, self.gradients, self.first, self.second))
            value.mul_((1 - rates * decay).float())
            mean.lerp_(gradient, 1 - one)
            square.mul_(two).addcmul_(gradient, gradient, value=1 - two)
            spread = (square.sqrt() / second**0.5).add_(how.eps)
            value.addcdiv_(mean * (-rates / first).float(), spread)
            start += size


def seconds(
    models: Sequence[nn.Module], data: DataSet, recipes: Sequence[Recipe], *, steps: int = 3
) -> tuple[float, float]:
    """What a step of all takes one after another, and together: the least of some, in turn; CPU time on a CPU.

    Models are left as they are.
    """
    with torch.random.fork_rng([]):
        group = Together([copy.deepcopy(model) for model in models], data, recipes)
        alone = [run_of(copy.deepcopy(model), data, recipe) for model, recipe in zip(models, recipes, strict=True)]
        spent: list[tuple[float, float]] = []
        for _ in range(steps + 1):
            start = _clock(group.device)
            for run in alone:
                run.advance()
            between = _clock(group.device)
            group.advance()
            spent.append((between - start, _clock(group.device) - between))
    one, other = (min(each) for each in zip(*spent[1:], strict=True))  # the first step is a warm-up
    return one, other


def faster(models: Sequence[nn.Module], data: DataSet, recipes: Sequence[Recipe], *, steps: int = 3) -> float:
    """How many times as fast a step of all is together as one after another, measured; models are left as they are."""
    one, other = seconds(models, data, recipes, steps=steps)
    return one / other


def run_of(model: nn.Module, data: DataSet, recipe: Recipe) -> Run:
    """A run alone, at its beginning."""
    device = device_of(recipe)
    return Run(model.to(device), data, recipe, device)


def _clock(device: torch.device) -> float:
    """Seconds that a device worked."""
    if device.type == "cpu":
        return time.process_time()
    torch.accelerator.synchronize(device)
    return time.perf_counter()
