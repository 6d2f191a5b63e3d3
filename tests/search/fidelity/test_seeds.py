"""Seeds are spent where they can change the front."""

import numpy as np
import pytest

from search.fidelity.seeds import deserving, means, noise


def test_noise_is_pooled():
    chance = np.random.default_rng(0)
    groups = [
        list(chance.normal(level, 0.03, count)) for level, count in zip(range(200), [1, 2, 3, 4] * 50, strict=True)
    ]
    assert noise(groups) == (pytest.approx(0.03, rel=0.1), 300)
    assert noise([[1.0, 3.0]]) == (pytest.approx(np.std([1.0, 3.0], ddof=1)), 1)
    assert noise([[1.0], [2.0], []]) is None


def test_errors_fall_with_the_seeds():
    found = means({"a": [1.0, 1.2, 1.1, 1.3], "b": [2.0, 2.2], "c": [3.0]})
    assert found["a"].mean == pytest.approx(1.15) and found["a"].count == 4
    assert found["a"].error * 2 == pytest.approx(found["b"].error * 2**0.5) == pytest.approx(found["c"].error)
    assert means({"a": [1.0]})["a"].error is None


def test_the_front_is_repeated_until_it_is_settled():
    exact = {"small": [1.0], "twin": [1.1], "large": [9.0], "bad": [5.0], "close": [9.5]}
    paid = {"small": [3.0], "twin": [3.01], "large": [2.0], "bad": [4.0], "close": [2.02]}
    assert deserving(paid, exact, most=5) == ["small", "large"]  # nothing is known of the noise
    paid |= {"small": [3.0, 3.04], "large": [2.0, 2.03]}
    assert deserving(paid, exact, most=5) == ["twin", "close", "small", "large"]  # 0.01 and 0.02 are within it
    paid |= {"twin": [3.20, 3.22], "close": [2.02, 2.0]}
    assert deserving(paid, exact, most=5) == ["large", "close"]  # small has no rival left
    assert deserving(paid, exact, most=2) == []
    assert deserving(paid, exact, most=5, least=3) == ["small", "large", "close"]


def test_the_best_is_found_more_often_than_with_equal_seeds():
    """Twenty candidates of equal cost, 60 seeds in all."""
    chance = np.random.default_rng(1)
    right = {"ours": 0, "equal": 0}
    for _ in range(100):
        true = {str(n): chance.normal(2, 0.1) for n in range(20)}
        exact = {key: [1.0] for key in true}
        best = min(true, key=true.get)
        paid = {key: [chance.normal(value, 0.05)] for key, value in true.items()}
        while sum(map(len, paid.values())) < 60 and (who := deserving(paid, exact, most=30)):
            paid[who[0]].append(chance.normal(true[who[0]], 0.05))
        right["ours"] += min(means(paid).items(), key=lambda pair: pair[1].mean)[0] == best
        equal = {key: np.mean(chance.normal(value, 0.05, 3)) for key, value in true.items()}
        right["equal"] += min(equal, key=equal.get) == best
    assert right["ours"] > right["equal"] + 5, right
