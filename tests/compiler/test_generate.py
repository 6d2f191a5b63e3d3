"""Generation takes the tokens that full passes would take."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

import compiler
from archspec.spec import load
from compiler.generate import pick
from tests.models import perturbed
from tests.specs import EXAMPLES

PROMPTS = [[5, 6, 7, 8, 9], [40], [77, 3]]


@cache
def model() -> Any:
    return perturbed(compiler.compile(load(EXAMPLES / "tiny.yaml")))


@torch.no_grad()
def by_full_passes(prompt: list[int], tokens: int) -> list[int]:
    ids = list(prompt)
    for _ in range(tokens):
        ids.append(int(model().eval()(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


def test_greedy_tokens_of_a_ragged_batch_are_those_of_full_passes() -> None:
    assert compiler.generate(model(), PROMPTS, tokens=12) == [by_full_passes(prompt, 12) for prompt in PROMPTS]


def test_a_model_in_training_is_so_afterwards() -> None:
    model().train()
    compiler.generate(model(), [[1]], tokens=1)
    assert model().training


def test_only_the_likeliest_token_is_greedy() -> None:
    greedy = compiler.generate(model(), PROMPTS, tokens=8)
    assert compiler.generate(model(), PROMPTS, tokens=8, temperature=0.7, top_k=1) == greedy
    assert compiler.generate(model(), PROMPTS, tokens=8, temperature=0.7, top_p=1e-6) == greedy


def test_draws_are_repeated_by_their_seed() -> None:
    drawn = [compiler.generate(model(), PROMPTS, tokens=8, temperature=2.0, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_sequence_ends_before_its_stop() -> None:
    whole = by_full_passes(PROMPTS[0], 12)
    stop = whole[4]
    found = compiler.generate(model(), PROMPTS[:1], tokens=12, stop={stop})[0]
    assert found == whole[: whole.index(stop)]


def test_draws_follow_their_probabilities() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(20_000, 4)
    chance = torch.Generator().manual_seed(0)

    def shares(**how: Any) -> list[float]:
        drawn = pick(logits, how.get("temperature", 1.0), how.get("top_k"), how.get("top_p"), chance)
        return (torch.bincount(drawn, minlength=4) / len(drawn)).tolist()

    assert shares() == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.015)
    assert shares(top_k=2) == pytest.approx([0.625, 0.375, 0, 0], abs=0.015)
    assert shares(top_p=0.8) == pytest.approx([0.625, 0.375, 0, 0], abs=0.015)
    assert shares(top_p=0.81) == pytest.approx([0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0], abs=0.015)
    squares = [0.25, 0.09, 0.0225, 0.0025]
    assert shares(temperature=0.5) == pytest.approx([s / sum(squares) for s in squares], abs=0.015)


@pytest.mark.parametrize("wrong", [{"temperature": -1}, {"top_k": 0}, {"top_p": 0}, {"top_p": 1.5}, {"tokens": -1}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="temperature is 0 or more"):
        compiler.generate(model(), PROMPTS, **{"tokens": 2, **wrong})


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one token"):
        compiler.generate(model(), [[]], tokens=2)


def test_more_tokens_than_the_model_reads_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 256"):
        compiler.generate(model(), [[1] * 250], tokens=10)
