"""Hunyuan-TurboS. Tencent Hunyuan Team 2025, arXiv 2505.15431."""

from collections import Counter

import pytest

from search.cost.price import price
from tests.models import nodes
from tests.zoo.published import spec

pytestmark = pytest.mark.system("hunyuan_turbos")


def test_layers_are_the_published_ones() -> None:
    found = Counter(node.kind.name_ for node in nodes(spec("recurrence/hunyuan_turbos_560b").graph))
    assert (found["mamba2"], found["attention"], found["mixture"]) == (57, 7, 64)


def test_totals_are_the_published_ones() -> None:
    cost = price(spec("recurrence/hunyuan_turbos_560b"), length=256)
    assert cost.parameters == pytest.approx(560e9, rel=0.01)
    assert cost.active == pytest.approx(56e9, rel=0.03)


def test_only_attention_keeps_something_for_each_token() -> None:
    cost = price(spec("recurrence/hunyuan_turbos_560b"), length=256)
    assert cost.cache_per_token == 7 * 2 * 8 * 128 * 4
    tiny = price(spec("recurrence/hunyuan_turbos"))
    assert tiny.cache_per_token == 2 * 2 * 2 * 16 * 4
