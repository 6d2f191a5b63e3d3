from __future__ import annotations

import numpy as np
import pytest

from search.frontier.features import Encoder, Scale
from spaces.encoding import decode, sample_encoded
from spaces.space import Space, load


@pytest.fixture(scope="module")
def space() -> Space:
    return load("hw_gpt_s")


@pytest.fixture(scope="module")
def sample(space: Space) -> np.ndarray:
    return sample_encoded(space, np.random.default_rng(0), 400)


def test_columns_of_a_space_with_rounds(space: Space, sample: np.ndarray) -> None:
    encoder = Encoder(space.slots, sample, {"parameters": 2.0 ** sample[:, 0], "none": np.zeros(len(sample))})
    found = encoder(sample, {"parameters": 2.0 ** sample[:, 0], "none": np.zeros(len(sample))})
    assert len(encoder.rounds) == 2  # heads and ratio: whether a layer has biases follows from the dims
    assert [part.shape for part in found.rounds] == [(400, 2, 12), (400, 2, 12)]
    assert found.once.shape[1] == 3 + 1  # the width also as a square
    assert found.costs.shape[1] == 1  # a constant says nothing
    for columns in (found.costs, found.once, found.totals):
        assert columns.mean(axis=0) == pytest.approx(0, abs=1e-9)
        assert columns.std(axis=0) == pytest.approx(1)
    heads = [sum(layer_heads(space, vector)) for vector in sample[:50]]
    fitted = np.column_stack([found.totals, found.once])[:50]
    coefficients, *_ = np.linalg.lstsq(np.column_stack([fitted, np.ones(50)]), np.array(heads, dtype=float))
    assert np.column_stack([fitted, np.ones(50)]) @ coefficients == pytest.approx(heads)  # a total is among them


def layer_heads(space: Space, vector: np.ndarray) -> list[int]:
    return [int(value) for path, value in decode(space, vector).values.items() if path.endswith("heads")]


def test_a_layer_that_is_not_there_has_no_effect(space: Space, sample: np.ndarray) -> None:
    encoder = Encoder(space.slots, sample, {"parameters": np.ones(len(sample))})
    short = sample[:, 1] == 10
    found = encoder(sample, {"parameters": np.ones(len(sample))})
    assert (found.rounds[0][short][:, :, 10:] == 0).all()
    assert (found.rounds[0][short][:, 0, :10] != 0).all()


def test_columns_that_repeat_another_are_left_out() -> None:
    columns = np.random.default_rng(1).standard_normal((50, 2))
    beside = Scale(columns[:, 1:])(columns[:, 1:])
    scale = Scale(np.column_stack([columns, 3 - 2 * columns[:, 0], np.ones(50)]), [beside])
    assert scale.kept.tolist() == [0]


@pytest.mark.parametrize("name", ["language_model", "hybrid_attention_convolution", "vision_transformer"])
def test_every_kind_of_choice_has_finite_columns(name: str) -> None:
    space = load(name)
    sample = sample_encoded(space, np.random.default_rng(0), 64)
    costs = {"parameters": np.arange(1.0, 65)}
    found = Encoder(space.slots, sample, costs)(sample, costs)
    for columns in (found.costs, found.totals, found.once, *found.rounds):
        assert len(columns) == 64
        assert np.isfinite(columns).all()
    assert len(np.unique(np.round(np.column_stack([found.totals, found.once]), 9), axis=0)) > 32
