"""One model's code over several sets of weights in one pass (`torch.func.vmap`), drawing what each would draw alone.

What a member draws must not depend on the others, or a run would not be what it is alone: each has a generator of its
own, and dropout takes its noise from there. Attention goes through its kernel once, members beside each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.overrides import TorchFunctionMode


class Members:
    """A model that is called with the weights of several.

    Args:
        model: gives the code and the tables; its own weights are not touched.
        rates: of each dropout module, by its name, for each member.
    """

    def __init__(self, model: nn.Module, rates: Mapping[str, Sequence[float]], count: int) -> None:
        self.model, self.generators = model, [torch.Generator() for _ in range(count)]
        self.places = torch.arange(count, device=next(model.parameters()).device)
        self.rates = {id(model.get_submodule(name)): list(each) for name, each in rates.items()}

    def __call__(self, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor], seeds: Sequence[int]) -> list[Any]:
        """The outputs of each member.

        Args:
            weights: parameters and buffers by name, stacked; what is changed in place is changed there.
            inputs: by name, stacked.
            seeds: of what each member draws.
        """
        for generator, seed in zip(self.generators, seeds, strict=True):
            generator.manual_seed(seed)

        def call(weights: dict[str, Tensor], inputs: dict[str, Tensor], place: Tensor) -> Any:
            with _Drawing(self.generators, place):
                return functional_call(self.model, weights, kwargs=inputs, tie_weights=True)

        with _rates(self.model, self.rates):
            outputs = vmap(call, randomness="error")(dict(weights), dict(inputs), self.places)
        if isinstance(outputs, Tensor):
            return list(outputs.unbind())
        parts = {name: value.unbind() for name, value in outputs.items()}
        return [{name: part[number] for name, part in parts.items()} for number in range(len(seeds))]


class _rates:  # noqa: N801 -- a context manager
    """Inside, dropout modules say the rate of every member."""

    def __init__(self, model: nn.Module, rates: Mapping[int, list[float]]) -> None:
        self.modules = [(m, rates[id(m)]) for m in model.modules() if id(m) in rates]

    def __enter__(self) -> None:
        self.before = [module.p for module, _ in self.modules]
        for module, rates in self.modules:
            module.p = rates  # type: ignore[assignment]  -- handed on to F.dropout as it is

    def __exit__(self, *_: object) -> None:
        for (module, _), before in zip(self.modules, self.before, strict=True):
            module.p = before


class _Drawing(TorchFunctionMode):
    """Random numbers from each member's generator, and attention in one call."""

    def __init__(self, generators: list[torch.Generator], place: Tensor) -> None:
        super().__init__()
        self.generators, self.place = generators, place

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is F.dropout:
            return self._dropout(*args, **kwargs)
        if function is torch.rand and self.place.device.type == "cpu":
            return _Uniform.apply(self.place, self.generators, torch.Size(args))
        if function is F.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        return function(*args, **kwargs)

    def _dropout(self, x: Tensor, p: list[float] | float, training: bool = True, inplace: bool = False) -> Tensor:
        rates = p if isinstance(p, list) else [p] * len(self.generators)
        if not training or not any(rates):
            return x
        if x.device.type != "cpu":
            raise RuntimeError("an accelerator draws dropout inside a kernel, for all members at once")
        return x * _Keeping.apply(x.detach(), self.place, self.generators, rates)

    def _attention(self, q: Tensor, k: Tensor, v: Tensor, **how: Any) -> Any:
        mask = how.pop("attn_mask", None)
        if how.get("dropout_p"):
            raise RuntimeError("attention draws its dropout inside a kernel, for all members at once")
        return _Attention.apply(q, k, v, mask, how)


class _Apart(torch.autograd.Function):
    """Something that is done outside of `vmap`, on the tensors of all members; there autograd follows it as usual."""

    @staticmethod
    def forward(*_: Any) -> Any:
        raise RuntimeError("this is computed for several members alone")

    @staticmethod
    def setup_context(*_: Any) -> None:
        return None


class _Uniform(_Apart):
    @staticmethod
    def vmap(info: Any, in_dims: Any, place: Tensor, generators: list[torch.Generator], size: torch.Size) -> Any:
        return torch.stack([torch.rand(size, generator=generator) for generator in generators]), 0


class _Keeping(_Apart):
    @staticmethod
    def vmap(
        info: Any, in_dims: Any, x: Tensor, place: Tensor, generators: list[torch.Generator], rates: list[float]
    ) -> Any:
        each = x.unbind(in_dims[0]) if in_dims[0] is not None else [x] * len(generators)
        kept = []
        for part, generator, rate in zip(each, generators, rates, strict=True):
            kept.append(torch.empty_like(part).bernoulli_(1 - rate, generator=generator).div_(1 - rate or 1.0))
        return torch.stack(kept), 0


class _Attention(_Apart):
    @staticmethod
    def vmap(info: Any, in_dims: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, how: dict[str, Any]) -> Any:
        count = info.batch_size

        def beside(x: Tensor, dim: int | None) -> Tensor:
            x = x.movedim(dim, 0) if dim is not None else x.expand(count, *x.shape)
            return x.flatten(0, 1)

        q, k, v = (beside(x, dim) for x, dim in zip((q, k, v), in_dims[:3], strict=True))
        if mask is not None:
            mask = mask.movedim(in_dims[3], 0) if in_dims[3] is not None else mask[None]
            mask = mask.reshape(mask.shape[0], *[1] * (q.ndim + 1 - mask.ndim), *mask.shape[1:])
            mask = mask.expand(count, q.shape[0] // count, *mask.shape[2:]).flatten(0, 1)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, **how)
        return y.unflatten(0, (count, -1)), 0
