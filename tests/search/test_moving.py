"""Training while numbers move and parameters freeze: what each step sees, and the same after a pause."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import compiler
from archspec.errors import SpecError
from archspec.source import parse
from archspec.spec import Spec, load, loads
from compiler.moving import numbers
from search.data.batches import Data, DataSet
from search.fidelity.alike import reason
from search.fit import fit
from search.freezing import Frozen
from search.kinds import fields
from search.recipe import Recipe
from search.train import Run, train
from tests.specs import EXAMPLES

SPEC = """archspec: 1
name: moves
interface: {kind: causal_lm, vocab: 256, length: 32}
graph:
  - {kind: token_embedding, width: 16}
  - kind: residual
    factor: {bind: step, from: 0, to: 1, between: [0, 0.5]}
    drop_path: {bind: step, range: [0, 0.5], default: 0}
    body:
      kind: mixture
      experts: {count: 4, body: {kind: glu, hidden: 8}}
      router: {kind: top_k, k: {bind: step, from: 1, to: 4}}
  - lm_head
"""  # fmt: skip
RECIPE = Recipe(steps=12, batch=4, length=16, validation_batches=1)


@pytest.fixture(scope="module")
def spec() -> Spec:
    return loads(SPEC)


@pytest.fixture(scope="module")
def data(spec: Spec) -> DataSet:
    return Data.read("text", "data", None).open(spec.interface)


def recipe(written: str) -> Recipe:
    return fields(Recipe, parse(f"steps: 12\nbatch: 4\nlength: 16\nvalidation_batches: 1\n{written}"))


class Watched(Run):
    """A run that tells what its numbers are in each step and each validation."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.seen: dict[bool, list[tuple[int, list[float]]]] = {True: [], False: []}

    def loss(self, batch: Any) -> Any:
        self.seen[self.model.training].append((self.step, [one.value.item() for one in numbers(self.model)]))
        return super().loss(batch)


def test_each_step_sees_its_progress_and_validation_the_present(spec: Spec, data: DataSet) -> None:
    run = Watched(compiler.compile(spec), data, recipe("evaluate_every: 3"), torch.device("cpu"))
    run.through(None, None, 10.0, None, 12)
    courses = [one.course for one in numbers(run.model)]
    assert {str(course) for course in courses} >= {"1 → 4", "0 → 1 between 0 and 0.5"}
    for step, values in run.seen[True]:
        assert values == pytest.approx([course.at(step / 12, (0, step)) for course in courses])
    assert [step for step, _ in run.seen[False]] == [3, 6, 9, 12]
    for step, values in run.seen[False]:
        assert values == pytest.approx([course.at(step / 12) for course in courses])
    drawn = [
        values[[str(course) for course in courses].index("drawn from 0–0.5, then 0")] for _, values in run.seen[True]
    ]
    assert len(set(drawn)) == 12
    assert [one.number for one in numbers(run.model)] == [course.final for course in courses]


@pytest.mark.parametrize("pause", [3, 6, 11])
def test_a_run_that_stops_and_goes_on_equals_one_that_does_not(
    spec: Spec, data: DataSet, pause: int, tmp_path: Path
) -> None:
    how = recipe("freeze: ['**.router', {parameters: token_embedding, after: 0.5}]")
    whole, parts = compiler.compile(spec), compiler.compile(spec)
    expected = train(whole, data, how)
    train(parts, data, how, folder=tmp_path, until=pause)
    gone_on = compiler.compile(spec, seed=9)
    found = train(gone_on, data, how, folder=tmp_path)
    assert found.losses == expected.losses and found.validations[-1] == expected.validations[-1]
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), gone_on.parameters(), strict=True))


def test_a_finished_run_is_loaded_as_what_it_ended_at(spec: Spec, data: DataSet, tmp_path: Path) -> None:
    model, _ = fit(spec, data, RECIPE, tmp_path)
    again, _ = fit(spec, data, RECIPE, tmp_path)
    given = torch.randint(0, 256, (2, 16))
    assert torch.equal(model.eval()(given), again.eval()(given))
    assert torch.equal(compiler.settle(again)(given), again(given))


def values(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def learned(spec: Spec, data: DataSet, how: Recipe, until: int = 12) -> set[str]:
    """Parameters that changed."""
    model = compiler.compile(spec)
    before = values(model)
    train(model, data, how, until=until)
    return {name for name, value in values(model).items() if not torch.equal(value, before[name])}


def test_frozen_parameters_stay_bit_for_bit_and_others_learn(data: DataSet) -> None:
    spec = load(EXAMPLES / "growing_mixture.yaml")
    every = {name for name, _ in compiler.compile(spec, device="meta").named_parameters()}
    routers = {name for name in every if ".router." in name}
    assert len(routers) == 4
    assert learned(spec, data, recipe("freeze: ['**.router']"), 4) == every - routers
    assert learned(spec, data, recipe("freeze: [repeat.*.channel.body.router.weight]"), 4) == every - routers
    assert learned(spec, data, recipe("freeze: ['repeat.0.**']"), 4) == {n for n in every if "repeat.0." not in n}
    assert learned(spec, data, recipe("freeze: [repeat]"), 4) == {n for n in every if not n.startswith("repeat.")}


def test_parameters_freeze_after_their_share_of_the_steps(spec: Spec, data: DataSet) -> None:
    how = recipe("freeze: [{parameters: lm_head, after: 0.5}]")
    models: list[dict[str, torch.Tensor]] = []
    for until in (5, 6, 7, 12):
        model = compiler.compile(spec)
        train(model, data, how, until=until)
        models.append(values(model))
    heads = [one["lm_head.weight"] for one in models]
    assert not torch.equal(heads[0], heads[1]) and torch.equal(heads[1], heads[2]) and torch.equal(heads[1], heads[3])
    assert not torch.equal(models[1]["token_embedding.weight"], models[2]["token_embedding.weight"])


WRONG = [
    ("freeze: ['**.ruter']", "no parameter is called '**.ruter'\n  did you mean router?"),
    ("freeze: [lm_head, '*.nothing']", "train.freeze[1].parameters\n  no parameter is called '*.nothing'"),
    ("freeze: ['**']", "nothing is left to learn after step 0"),
    ("freeze: [{parameters: '**', after: 0.5}]", "nothing is left to learn after step 6"),
    ("freeze: [{parameters: lm_head, after: 1.5}]", "it should be less than 1"),
    ("freeze: [{pattern: lm_head}]", "parameters is missing"),
]


@pytest.mark.parametrize(("written", "cause"), WRONG)
def test_what_cannot_freeze_is_told(spec: Spec, data: DataSet, written: str, cause: str) -> None:
    with pytest.raises(SpecError) as error:
        train(compiler.compile(spec), data, recipe(written))
    assert cause in str(error.value)


def test_a_recipe_that_freezes_nothing_is_what_it_was() -> None:
    assert "freeze" not in Recipe().model_dump(mode="json")
    frozen = Recipe(freeze=[Frozen(parameters="lm_head")])
    assert frozen.model_dump()["freeze"] == [{"parameters": "lm_head", "after": 0.0}]
    assert frozen.digest != Recipe().digest and Recipe.model_validate(frozen.model_dump()) == frozen


def test_a_run_is_not_continued_with_other_parameters_frozen(spec: Spec, data: DataSet, tmp_path: Path) -> None:
    train(compiler.compile(spec), data, recipe("freeze: [lm_head]"), folder=tmp_path, until=2)
    with pytest.raises(SpecError, match="freeze was"):
        train(compiler.compile(spec), data, RECIPE, folder=tmp_path)


def test_models_whose_numbers_move_or_whose_parameters_freeze_are_trained_alone(spec: Spec, data: DataSet) -> None:
    moving, plain = ([compiler.compile(one, seed=seed) for seed in (0, 1)] for one in (spec, spec.final))
    assert reason(moving, data, [RECIPE, RECIPE]) == "numbers move in training"
    assert reason(plain, data, [recipe("freeze: [lm_head]")] * 2) == "parameters that freeze are trained alone"
