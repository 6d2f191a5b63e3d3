"""The Zen score, against what a linear network makes of noise."""

import math

import pytest
import torch
from torch import nn

from search.proxies.zen import CHANGE, ZenScore


def linear(*sizes, norm=None):
    layers = []
    for a, b in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(a, b, bias=False), *([norm(b)] if norm else [])]
    return nn.Sequential(*layers[: None if norm is None else -1])


LAYER = (
    "{kind: transformer_layer, norm: rms_norm, mixer: {kind: attention, heads: 4}, channel: {kind: glu, hidden: 48}}"
)


@pytest.mark.parametrize("norm", [None, nn.RMSNorm, nn.LayerNorm], ids=["none", "rms", "layer"])
def test_a_linear_net_stretches_by_its_widths_and_norms_change_nothing(classifier, norm):
    """With all of N(0, 1) a product of matrices stretches by the root of the product of its widths."""
    probed = classifier(linear(64, 96, 80, 50, norm=norm), inputs=(64,), batch=16)
    expected = math.log(CHANGE * math.sqrt(64 * 96 * 80 * 50))
    assert ZenScore(repeats=16).probe(probed) == pytest.approx(expected, abs=0.1)


def test_weights_and_inputs_are_drawn_not_taken(decoder):
    one, other = decoder(seed=0), decoder(seed=1)
    assert not any(torch.equal(weight, other.weights[name]) for name, weight in one.weights.items())
    assert ZenScore().probe(one) == ZenScore().probe(other)


def test_the_change_reaches_the_logits_of_a_decoder(decoder):
    score = ZenScore().probe(decoder())
    deeper = ZenScore().probe(decoder("{kind: sequence, body: [%s, %s]}" % ((LAYER,) * 2)))
    assert math.isfinite(score) and deeper > score
