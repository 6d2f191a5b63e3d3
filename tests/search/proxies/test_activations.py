"""Proxies by binary codes, against codes that are compared bit by bit."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from archspec.errors import SpecError
from search.proxies.activations import ActivationDistance, Naswot, codes

PLAIN = """{kind: transformer_layer, norm: rms_norm, mixer: {kind: attention, heads: 2},
      channel: {kind: mlp, hidden: 40, activation: gelu}}"""


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.GELU(), nn.SiLU(), nn.Sigmoid()], ids=lambda a: type(a).__name__)
def test_naswot_is_the_determinant_of_how_codes_agree(classifier, activation):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 9), activation, nn.Linear(9, 7), activation, nn.Linear(7, 3))
    probed = classifier(net)
    x = probed.batch.inputs["input"]
    with torch.no_grad():
        bits = torch.cat([net[:1](x) > 0, net[:3](x) > 0], dim=1).tolist()
    kernel = [[sum(a == b for a, b in zip(one, other, strict=True)) for other in bits] for one in bits]
    assert Naswot().probe(probed) == pytest.approx(np.linalg.slogdet(np.array(kernel, float))[1], rel=1e-9)


def test_samples_that_are_not_told_apart_have_no_volume(classifier):
    net = nn.Sequential(nn.Linear(5, 9), nn.ReLU())
    probed = classifier(net)
    probed.batch.inputs["input"][1] = probed.batch.inputs["input"][0]
    assert Naswot().probe(probed) < -30 or Naswot().probe(probed) == -math.inf


def test_codes_of_a_decoder_are_the_signs_of_what_enters_its_activations(decoder):
    probed = decoder(PLAIN)
    entering = []
    for name, module in probed.model.named_modules():
        if name.endswith("up"):
            module.register_forward_hook(lambda _, __, out: entering.append(out > 0))
    found = codes(probed)
    assert len(found) == len(entering) == 2 and found[0].shape == (8, 32, 40)
    assert all(torch.equal(one, other) for one, other in zip(found, entering, strict=True))


def test_activation_distance_is_the_share_of_units_in_which_tokens_differ(decoder):
    probed = decoder(PLAIN, batch=2)
    shares = []
    for on in codes(probed):
        for sample in on.tolist():
            pairs = [(a, b) for a, b in product(range(32), repeat=2) if a != b]
            differ = [sum(x != y for x, y in zip(sample[a], sample[b], strict=True)) / 40 for a, b in pairs]
            shares.append(sum(differ) / len(pairs))
    assert ActivationDistance().probe(probed) == pytest.approx(sum(shares) / len(shares), rel=1e-5)


def test_a_model_without_units_is_refused(decoder, classifier):
    with pytest.raises(SpecError, match="no units"):
        Naswot().probe(decoder("{kind: residual, norm: rms_norm, body: {kind: attention, heads: 2}}"))
    with pytest.raises(SpecError, match="no tokens"):
        ActivationDistance().probe(classifier(nn.Sequential(nn.Linear(5, 9), nn.ReLU())))
