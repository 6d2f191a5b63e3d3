"""The processes that train one model: who they are, which device and which rows each has, and what they add up."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, fx, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

import compiler
from archspec.errors import Problem, SpecError
from archspec.spec import Spec
from compiler.registry import Leaf
from compiler.weights import unique
from search.data.batches import Batch, DataSet
from search.distributed import sharding
from search.recipe import Recipe
from search.train import Run


class Group:
    """Processes of one training run, this one among them.

    Attributes:
        rank: number of this process; that of number 0 writes files and tells of progress.
        size: how many there are.
        here: how many are on this machine.
        device: of this process, once a recipe is `settled`.
    """

    device: torch.device
    mesh: DeviceMesh

    def __init__(self, rank: int, size: int, local: int, here: int) -> None:
        self.rank, self.size, self.local, self.here = rank, size, local, here

    @classmethod
    @contextmanager
    def join(cls) -> Iterator[Group]:
        """Meets the others; an error that many have is told by one."""
        store, rank, size = next(dist.rendezvous("env://"))
        store = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)  # not what was said before
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
        local = int(os.environ["LOCAL_RANK"])
        try:
            yield cls(rank, size, local, int(os.environ.get("LOCAL_WORLD_SIZE", size)))
            dist.barrier()  # none leaves while another is at work
        except (SpecError, RuntimeError) as error:
            if not isinstance(error, SpecError):
                if not isinstance(error, dist.DistError) and "gloo" not in str(error).lower():
                    raise
                hint = "see what it says; the same command goes on from what was saved"
                error = SpecError(Problem("another process of this run has ended", hint))
            word = hashlib.sha256(str(error).encode()).hexdigest()
            first = 1
            with suppress(RuntimeError):  # the store may be gone with the process that kept it
                first = store.add(word, 1)
            if first > 1:
                raise SystemExit(2) from None
            raise error from None
        finally:
            dist.destroy_process_group()
            # Gloo's threads let go of the last tensors under Python's lock; to wait for it while Python ends is fatal.
            time.sleep(0.2)

    def settled(self, spec: Spec, recipe: Recipe) -> None:
        """Takes the device of a resolved recipe.

        Errors:
            SpecError: the batch cannot be divided, there are too few devices, or the model's samples need each other.
        """
        assert isinstance(recipe.batch, int), recipe
        if recipe.batch % self.size:
            down = recipe.batch - recipe.batch % self.size
            hint = f"try {' or '.join(str(n) for n in (down, down + self.size) if n)}"
            cause = f"a batch of {recipe.batch} cannot be divided among {self.size} processes"
            raise SpecError(Problem(cause, hint, "train.batch"))
        name, _, number = recipe.device.partition(":")
        if name not in ("cpu", "cuda"):
            cause = f"several processes train on cpu or cuda, not on {recipe.device}"
            raise SpecError(Problem(cause, "try device: cpu, or one process", "train.device"))
        if name == "cuda" and number:
            cause = f"each process needs a GPU of its own, and {recipe.device} is one"
            raise SpecError(Problem(cause, "try device: cuda", "train.device"))
        if name == "cuda" and (there := torch.cuda.device_count()) < self.here:
            cause = f"each process needs a GPU of its own: there are {self.here} processes and {there} GPUs"
            hint = f"try torchrun --nproc-per-node {there}" if there else "try device: cpu"
            raise SpecError(Problem(cause, hint, "train.device"))
        sharding.check(spec)
        self.device = torch.device(f"cuda:{self.local}" if name == "cuda" else "cpu")
        if name == "cuda":
            torch.cuda.set_device(self.device)
        self.mesh = init_device_mesh(name, (self.size,))

    def build(self, spec: Spec, recipe: Recipe) -> fx.GraphModule:
        """Compiles a spec as `compiler.compile` does; of each parameter, this process holds its share."""
        model = compiler.compile(spec, device="meta")
        sharding.shard(model, self.mesh)
        sharding.fill(model, spec, self.device, recipe.seed)
        for module in model.modules():
            if isinstance(module, Leaf):
                module.across = self.summed
        return model

    def run(self, model: nn.Module, data: DataSet, recipe: Recipe) -> Run:
        """A training run of a model that the group built."""
        from search.distributed.run import SharedRun

        return SharedRun(model, data, recipe, self)

    def save(self, model: fx.GraphModule, folder: Path) -> None:
        """`compiler.save`, by one for all. Raises `SpecError`."""
        if self.rank == 0:
            compiler.save(model, folder, whole=sharding.whole)
        else:
            sharding.hand_over(unique(model)[0].values())

    def rows(self, batch: Batch) -> Batch:
        """This process's rows of a batch; where there are too few for all, one that is not counted."""

        def mine(value: Tensor) -> Tensor:
            return value.tensor_split(self.size)[self.rank]

        if not len(mine(batch.targets)):
            return Batch({k: v[:1] for k, v in batch.inputs.items()}, torch.full_like(batch.targets[:1], -100))
        return Batch({name: mine(value) for name, value in batch.inputs.items()}, mine(batch.targets))

    def total(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        value = value.detach().clone()
        dist.all_reduce(value)
        return value

    def summed(self, value: Tensor) -> Tensor:
        """`total`, through which gradients flow, of a number of which each process makes the same loss."""
        total: Tensor = _Summed.apply(value, self)  # type: ignore[no-untyped-call]
        return total

    def agreed(self, said: bool) -> bool:
        """What process 0 says."""
        held = torch.tensor(said)
        dist.broadcast(held, 0)
        return bool(held)


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, group: Group) -> Tensor:
        ctx.size = group.size
        return group.total(value)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Any:
        return given[0] * ctx.size, None  # gradients of weights are averaged over the processes afterwards
