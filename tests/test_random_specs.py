"""Whatever can be written compiles, trains and is priced exactly, or is refused with its place in the file."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from archspec.canonical import text
from archspec.errors import SpecError
from archspec.spec import Spec, loads
from compiler.model import compile
from search.cost.operators import FORMULAS
from search.cost.price import price
from tests.models import inputs, perturbed, runs, size_of
from tests.random_specs import broken, specs
from tests.specs import example_files, kind_specs

TEXTS = [
    *kind_specs().values(),
    *(path.read_text("utf-8") for path in example_files().values() if path.stem != "deepseek_v3"),
]
TREES = [yaml.safe_load(one) for one in TEXTS]
quick = settings(
    max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
long = settings(quick, max_examples=int(os.environ.get("EXAMPLES", "3000")), derandomize=False)


def differentiable(model: Any, given: list[Any]) -> bool:
    """Whether all gradients are numbers; where branches square their inputs until single precision ends, of a model
    with smaller weights."""
    for factor in (1.0, 0.1):
        model.zero_grad()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter *= factor
        sum(out.square().mean() for out in runs(model, given).values()).backward()
        if all(p.grad is None or p.grad.isfinite().all() for p in model.parameters()):
            return True
    return False


def works(tree: Any) -> None:
    """Compiles, runs forward and backward, and is priced as torch counts."""
    spec = loads(text(tree))
    given = inputs(spec, batch=2, length=8)
    model = perturbed(compile(spec))
    assert differentiable(model, given)
    found = runs(model.eval(), given)
    for name, stream in spec.graph.types.items():
        assert list(found[name].shape) == [2, *([size_of(stream.count, 8)] if stream.spans else []), stream.width]
    again = loads(text(spec.canonical()))
    assert (again.full, again.structure) == (spec.full, spec.structure)
    cost = price(spec, batch=2, length=8, device="l4")
    assert cost.parameters == sum(p.numel() for p in model.parameters())
    bare = compile(spec, device="meta")
    for training, flops in ((False, cost.forward), (True, cost.training_step)):
        with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
            outs = [
                out
                for out in runs(bare.train(training), [one.to("meta") for one in given]).values()
                if out.requires_grad
            ]
            if training:
                torch.autograd.backward(outs, [torch.empty_like(out) for out in outs])
        assert flops == counter.get_total_flops()


def told(source: str) -> Spec | None:
    """A spec, or None for an error of which every problem has its place in the text."""
    try:
        return loads(source, "here.yaml")
    except SpecError as error:
        for problem in error.problems:
            assert problem.cause and "\n" not in problem.cause, problem
            assert problem.mark is not None, problem
            assert problem.mark.file == "here.yaml" and 1 <= problem.mark.line <= source.count("\n") + 1, problem
        assert not any(word in str(error) for word in ("Traceback", "pydantic", "<class", "object at")), str(error)
        event("refused")
        return None


def survives(source: str) -> None:
    """Is refused with its place, or compiles."""
    spec = told(source)
    if spec is not None:
        compile(spec, device="meta")


@quick
@given(specs())
def test_valid_specs_work(tree: Any) -> None:
    works(tree)


@settings(quick, max_examples=400)
@given(st.sampled_from(TREES).flatmap(broken))
def test_broken_specs_are_refused_with_their_place(tree: Any) -> None:
    survives(text(tree))


@settings(quick, max_examples=300)
@given(st.sampled_from(TEXTS), st.data())
def test_broken_text_is_refused_with_its_place(source: str, data: Any) -> None:
    start = data.draw(st.integers(0, len(source)))
    stop = data.draw(st.integers(start, min(len(source), start + 8)))
    told(source[:start] + data.draw(st.text("{}[]:,- \n#&*!|>'\"%@`ab0.\t\x00é", max_size=4)) + source[stop:])


@pytest.mark.slow
@long
@given(specs())
def test_many_valid_specs_work(tree: Any) -> None:
    works(tree)


@pytest.mark.slow
@settings(long, max_examples=10 * long.max_examples)
@given(st.one_of(st.sampled_from(TREES), specs()).flatmap(broken))
def test_many_broken_specs_are_refused_with_their_place(tree: Any) -> None:
    survives(text(tree))
