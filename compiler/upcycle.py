"""Experts that begin as copies of one: a model with mixtures, from a model that has one body in the place of each."""

from __future__ import annotations

import re

import torch
from torch import Tensor, fx

from archspec.errors import Problem, SpecError
from archspec.spec import Spec
from compiler.logical import logical
from compiler.model import compile
from compiler.stored import few

EXPERT = re.compile(r"(\.experts\.(?:bodies\.)?)\d+\.")
BODY = re.compile(r"\.experts\.bodies\.\d+\.\w+\.")


@torch.no_grad()
def upcycle(model: fx.GraphModule, spec: Spec, *, masked: float = 0.0, seed: int = 0) -> fx.GraphModule:
    """A model of a spec with the weights of another; each expert is a copy of what stands in its mixture's place.

    That is the expert's body alone, or a mixture of which the first expert is copied. Routers begin as their spec says.
    Komatsuzaki et al. 2022, "Sparse Upcycling", arXiv 2212.05055.

    Args:
        masked: share of each expert's weight matrices that is set to zero, others in each, so that experts differ
            (Nie et al. 2021, "EvoMoE", arXiv 2112.14397).
        seed: of routers and of what is masked.

    Errors:
        SpecError: the spec has other weights than those of the model and of routers, or none for some of the model's.
    """
    parameter = next(model.parameters())
    made = compile(spec, device=parameter.device, dtype=parameter.dtype, seed=seed)
    given, wanted = logical(model), logical(made)
    generator = torch.Generator(device=parameter.device).manual_seed(seed)
    used, foreign = set(), []
    for name, weight in wanted.items():
        source = next((one for one in _sources(name) if one in given), None)
        if source is not None and given[source].shape == weight.shape:
            used.add(source)
            weight.copy_(given[source])
            if masked and weight.ndim == 2 and EXPERT.search(name):
                weight.mul_(_kept(weight, masked, generator))
        elif ".router." not in name:
            foreign.append(name)
    left = [name for name in given if name not in used and ".router." not in name]
    for cause, names in (("the model has no weights for", foreign), ("the spec has no place for", left)):
        if names:
            raise SpecError(Problem(f"{cause} {few(names)}", "the spec should be the model's with experts for a body"))
    return made.train(model.training)  # type: ignore[no-any-return]


def _sources(name: str) -> tuple[str, ...]:
    """What a weight may be a copy of, the likeliest first."""
    if EXPERT.search(name) is None:
        return (name,)
    return EXPERT.sub(r"\g<1>0.", name), EXPERT.sub(".", name), BODY.sub(".", name)


def _kept(weight: Tensor, masked: float, generator: torch.Generator) -> Tensor:
    return torch.rand(weight.shape, generator=generator, device=weight.device) >= masked
