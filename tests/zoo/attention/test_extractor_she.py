"""Extractors. Chen 2023, arXiv 2308.07661."""

from itertools import pairwise

import pytest
import torch

from search.cost.price import price
from tests.zoo.published import build, parameters, random, spec

pytestmark = pytest.mark.system("extractor_she")

NAME = "attention/extractor_she"
FOUR = ("she", "he", "we", "me")
TOKENS = torch.arange(2 * 12).reshape(2, 12) * 17 % 128


@pytest.mark.parametrize("which", FOUR)
@torch.no_grad()
def test_no_token_is_seen_before_its_time(which: str) -> None:
    model = random(build(NAME, blocks__layer__mixer=which))
    before = model(TOKENS)
    for place in range(12):
        changed = TOKENS.clone()
        changed[:, place] = (changed[:, place] + 1) % 128
        after = model(changed)
        torch.testing.assert_close(after[:, :place], before[:, :place], atol=1e-4, rtol=1e-4)
        assert ((after[:, place:] - before[:, place:]).abs().amax((0, 2)) > 1e-3).all()


def test_parameters_and_operations_fall_from_one_to_the_next() -> None:
    models = [build(NAME, blocks__layer__mixer=which) for which in FOUR]
    costs = [price(spec(NAME, blocks__layer__mixer=which), length=256, device="l4").forward for which in FOUR]
    for a, b in pairwise(models):
        assert parameters(a) - parameters(b) == 4 * 96 * 96
    for before, after in pairwise(costs):
        assert before - after == 4 * 2 * 256 * 96 * 96


@torch.no_grad()
def test_an_output_is_its_gate_times_weights_by_lag_of_the_past() -> None:
    stream = {"axes": {"token": "length"}, "width": 96, "causal": "token", "limit": 256}
    model = random(build(NAME, interface={"kind": "backbone", "inputs": {"x": stream}}, graph=["she"]))
    x = torch.randn(2, 12, 96, generator=torch.Generator().manual_seed(0))
    state = {name.split(".")[-3]: value for name, value in model.state_dict().items()}
    expected = torch.zeros_like(x)
    for t in range(12):
        for s in range(t + 1):
            expected[:, t] += state["convolve"][t - s] * (x[:, s] @ state["value"].T)
    expected = expected * (x @ state["gate"].T) @ state["out"].T
    torch.testing.assert_close(model(x), expected, atol=1e-4, rtol=1e-4)
