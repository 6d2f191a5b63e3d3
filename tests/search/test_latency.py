"""Measured latency: larger models take longer, and nothing is left changed."""

import torch
from torch import nn

from search.latency import measure, resized


class Named(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 64), nn.Dropout(0.5))
        self.seen: list[tuple[bool, bool, int]] = []

    def forward(self, features):
        self.seen.append((self.training, torch.is_grad_enabled(), torch.get_num_threads()))
        return self.body(features)


def test_a_larger_model_takes_longer_and_is_measured_in_evaluation():
    small, large = Named(16), Named(8192)
    before = torch.get_num_threads()
    taken = measure([small, large], {"features": torch.randn(64, 64)}, repeats=9, threads=1, warmup=2)
    assert taken[0].median_ms < taken[1].median_ms
    assert all(one.lower_ms <= one.median_ms <= one.upper_ms and one.repeats == 9 for one in taken)
    assert small.seen == [(False, False, 1)] * 11 == large.seen
    assert small.training and large.training and torch.get_num_threads() == before and torch.is_grad_enabled()


def test_inputs_are_repeated_to_a_size():
    tokens = torch.arange(6).reshape(1, 6)
    assert resized({"tokens": tokens}, batch=2, length=8)["tokens"].tolist() == [[0, 1, 2, 3, 4, 5, 0, 1]] * 2
    assert resized({"tokens": tokens}, batch=1, length=None)["tokens"].equal(tokens)
    assert resized({"image": torch.zeros(1, 8, 8, 1)}, batch=3, length=9)["image"].shape == (3, 8, 8, 1)
