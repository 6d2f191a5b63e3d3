"""A model that goes on from what it kept gives what it gives for the whole sequence."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from archspec.errors import SpecError
from archspec.kind import REGISTRY
from archspec.spec import Spec, load, loads
from compiler.decoding import Decoding, refusals
from compiler.model import compile
from tests.models import inputs, perturbed
from tests.specs import example_files, kind_specs

KINDS, FILES = kind_specs(), example_files()
LARGEST = 3_000_000


@cache
def spec_of(case: str) -> Spec:
    return loads(KINDS[case]) if case in KINDS else load(FILES[case])


def decodes(case: str) -> bool:
    spec = spec_of(case)
    small = sum(p.numel() for p in compile(spec, device="meta").parameters()) <= LARGEST
    return small and not list(refusals(spec))


DECODED = [case for case in (*KINDS, *FILES) if decodes(case)]


def pieces(spec: Spec, tensors: list[Tensor], sizes: list[int], start: Tensor | None = None) -> Tensor:
    """The main output for a sequence that is read in pieces."""
    model = perturbed(compile(spec)).eval()
    names = [*spec.graph.inputs, *(word for words in spec.interface.carried().values() for word in words.values())]
    given = dict(zip(names, tensors, strict=True))
    causal, *others = (name for name, stream in spec.graph.inputs.items() if stream.causal)
    told = {tensor: word for name in (causal, *others) for word, tensor in spec.interface.carried()[name].items()}
    source = {name: tensor for name, tensor in given.items() if name not in (causal, *others, *told)}
    decoding = Decoding(model, start=start, source=source)
    found = []
    for size in sizes:
        at = slice(decoding.position, decoding.position + size)
        beside = {name: given[name][:, at] for name in (*others, *(x for x, word in told.items() if word != "valid"))}
        out = decoding(given[causal][:, at], **beside)
        found.append(next(iter(out.values())) if isinstance(out, dict) else out)
    return torch.cat(found, dim=1)


@torch.no_grad()
def whole(spec: Spec, tensors: list[Tensor]) -> Tensor:
    out = perturbed(compile(spec)).eval()(*tensors)
    return next(iter(out.values())) if isinstance(out, dict) else out


def unpadded(spec: Spec, batch: int) -> list[Tensor]:
    """Inputs whose tokens are all real."""
    tensors = inputs(spec, batch=batch, length=12)
    return [torch.ones_like(t) if t.dtype == torch.bool else t for t in tensors]


@pytest.mark.parametrize("case", DECODED)
def test_token_by_token_equals_the_full_pass(case: str) -> None:
    spec = spec_of(case)
    tensors = unpadded(spec, 2)
    expected = whole(spec, tensors)
    for sizes in ([1] * 12, [5, 1, 1, 3, 1, 1], [12]):
        torch.testing.assert_close(pieces(spec, tensors, sizes), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("case", [case for case in DECODED if len(spec_of(case).graph.inputs) == 1])
def test_padding_before_a_sequence_changes_nothing(case: str) -> None:
    spec = spec_of(case)
    tensors = unpadded(spec, 2)
    start = torch.tensor([0, 4])
    shifted = [torch.stack((t[0], torch.cat((t[1, :4], t[1, :8])))) for t in tensors]
    found = pieces(spec, shifted, [6, 1, 1, 3, 1], start)
    torch.testing.assert_close(found[0], whole(spec, tensors)[0], atol=1e-4, rtol=1e-4)
    expected = whole(spec, [t[1:, :8] for t in tensors])[0]
    torch.testing.assert_close(found[1, 4:], expected, atol=1e-4, rtol=1e-4)


def test_what_cannot_go_on_is_named() -> None:
    spec = spec_of("expert_choice-0")
    with pytest.raises(SpecError, match=r"route cannot be decoded token by token"):
        Decoding(compile(spec))


@pytest.mark.parametrize("kind", [name for name, kind in REGISTRY.items() if kind.incremental is True])
def test_kinds_that_say_so_are_decoded(kind: str) -> None:
    if "norm" in REGISTRY[kind].roles or kind in ("none",):
        return
    assert any(case.rsplit("-", 1)[0] == kind for case in DECODED)
