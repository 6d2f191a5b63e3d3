"""A model whose matrices are thin ones, from a model that has whole ones in their place."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from archspec.errors import Problem, SpecError
from archspec.spec import Spec
from compiler.logical import logical
from compiler.model import compile
from compiler.stored import few

DOWN = ".down.weight"


@torch.no_grad()
def factorize(model: fx.GraphModule, spec: Spec) -> fx.GraphModule:
    """A model of a spec with ``low_rank`` matrices, the nearest ones of their rank to those of the model.

    Each is the singular value decomposition cut off at the rank (Eckart and Young 1936), the root of each value in both
    factors: Khodak et al. 2021, "Initialization and Regularization of Factorized Neural Layers", arXiv 2105.01029. At
    full rank the outputs stay; other weights do so at any rank.

    Errors:
        SpecError: the spec has other weights than those of the model and of thin matrices in the place of its own.
    """
    first = next(model.parameters())
    made = compile(spec, device=first.device, dtype=first.dtype).train(model.training)
    given, wanted = logical(model), logical(made)
    filled: dict[str, str] = {}  # what is filled from what
    for name, target in wanted.items():
        if name in given and given[name].shape == target.shape:
            target.copy_(given[name])
            filled[name] = name
        path = name.removesuffix(DOWN)
        whole, up, bias = f"{path}.weight", f"{path}.up.weight", f"{path}.up.bias"
        if not name.endswith(DOWN) or whole in wanted or whole not in given or up not in wanted:
            continue
        if (wanted[up].shape[0], target.shape[1]) != given[whole].shape:
            continue
        _cut(given[whole], target, wanted[up])
        filled |= {name: whole, up: whole}
        if bias in wanted and f"{path}.bias" in given:
            wanted[bias].copy_(given[f"{path}.bias"])
            filled[bias] = f"{path}.bias"
    for cause, names in (
        ("the model has no weights for", wanted.keys() - filled.keys()),
        ("the spec has no place for", given.keys() - set(filled.values())),
    ):
        if names:
            hint = "the spec should be the model's with low_rank for matrices"
            raise SpecError(Problem(f"{cause} {few(sorted(names))}", hint))
    return made


def _cut(whole: Tensor, down: Tensor, up: Tensor) -> None:
    """Fills two thin matrices with the nearest product to a whole one."""
    rank = down.shape[0]
    u, s, v = torch.linalg.svd(whole.to(torch.promote_types(whole.dtype, torch.float32)), full_matrices=False)
    root = s[:rank].sqrt()
    up.copy_(u[:, :rank] * root)
    down.copy_(v[:rank] * root[:, None])
