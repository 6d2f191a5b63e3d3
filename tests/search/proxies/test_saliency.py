"""Proxies by gradients, against finite differences and closed forms."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from search.proxies.saliency import GradientNorm, Snip, Synflow


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def loss(probed, model):
    return F.cross_entropy(model(*probed.batch.inputs.values()), probed.batch.targets).item()


def differences(probed, step):
    """Central differences of the loss by each entry of each matrix, each moved by `step` of it."""
    found = []
    for name, weight in probed.weights.items():
        by = torch.zeros_like(weight)
        for place in range(weight.numel()):
            values = []
            for sign in (1, -1):
                model = copy.deepcopy(probed.model)
                entry = model.get_parameter(name).data.view(-1)
                entry[place] += sign * step(entry[place].item())
                values.append(loss(probed, model))
            by.view(-1)[place] = (values[0] - values[1]) / (2 * step(weight.data.view(-1)[place].item()))
        found.append((weight.detach(), by.detach()))
    return found


def test_gradient_norm_is_that_of_finite_differences(classifier):
    probed = classifier(mlp())
    expected = sum(by.norm().item() for _, by in differences(probed, lambda _: 1e-5))
    assert GradientNorm(kind="gradient_norm").probe(probed) == pytest.approx(expected, rel=1e-6)


def test_snip_is_how_the_loss_changes_with_masks_of_weights(classifier):
    """Lee et al., equation 5: the derivative by a mask that is one."""
    probed = classifier(mlp())
    masks = differences(
        probed, lambda weight: 1e-5 * weight
    )  # a mask that moves by 1e-5 moves its weight by that share
    expected = sum((weight * by).abs().sum().item() for weight, by in masks)
    assert Snip().probe(probed) == pytest.approx(expected, rel=1e-6)


def test_gradients_leave_the_model_as_it_was(decoder):
    probed = decoder()
    before = copy.deepcopy(probed.model.state_dict())
    for proxy in (GradientNorm(), Snip(), Synflow()):
        proxy.probe(probed)
    assert all(torch.equal(before[name], value) for name, value in probed.model.state_dict().items())
    assert all(value.grad is None for value in probed.model.parameters()) and not probed.model.training


def test_a_tied_table_counts_once_and_gains_do_not(decoder):
    names = set(decoder(tied="true").weights)
    assert len(set(decoder().weights) - names) == 1 and not any("norm" in name for name in names)


def test_gradients_of_a_compiled_decoder_are_those_of_backward(decoder):
    probed = decoder()
    model = copy.deepcopy(probed.model)
    logits = model(**probed.batch.inputs)
    F.cross_entropy(logits.flatten(0, 1), probed.batch.targets.flatten()).backward()
    expected = sum(p.grad.norm().item() for p in model.parameters() if p.dim() > 1)
    assert GradientNorm().probe(probed) == pytest.approx(expected, rel=1e-5)


def test_synflow_of_a_linear_net_is_the_sum_of_all_paths_once_a_layer(classifier):
    torch.manual_seed(1)
    net = nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in ((5, 7), (7, 6), (6, 3))))
    paths = torch.ones(5)
    for layer in net:
        paths = layer.weight.detach().abs() @ paths
    assert Synflow().probe(classifier(net)) == pytest.approx(math.log(3 * paths.sum().item()), rel=1e-6)


@pytest.mark.parametrize("norm", [nn.LayerNorm(6), nn.RMSNorm(6)], ids=["layer", "rms"])
def test_flow_is_conserved_through_norms(classifier, norm):
    """Tanaka et al., theorem 1: each layer between has the same flow, here all that comes out."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(5, 6, bias=False), norm, nn.Linear(6, 3, bias=False))
    first, last = net[0].weight.detach().abs(), net[2].weight.detach().abs()
    hidden = first @ torch.ones(5)
    out = last @ (hidden / hidden.square().mean().sqrt())
    assert Synflow().probe(classifier(net)) == pytest.approx(math.log(2 * out.sum().item()), rel=1e-5)


def test_synflow_of_a_decoder_without_mixers_is_the_sum_of_all_paths(decoder):
    """A residual of one matrix, then the head: paths counted by hand, tokens of the first sample."""
    probed = decoder("{kind: residual, body: {kind: mlp, hidden: 24, activation: identity, bias: false}}")
    weights = {name: value.detach().abs().double() for name, value in probed.weights.items()}
    table, *ups_and_downs, head = weights.values()
    tokens = probed.batch.inputs["tokens"][0]
    x = table[tokens]
    first_layer = ups_and_downs[1] @ ups_and_downs[0]
    second_layer = ups_and_downs[3] @ ups_and_downs[2]
    middle = x + x @ first_layer.T
    last = middle + middle @ second_layer.T
    scale = (last.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
    total = (last * scale @ head.T).sum()
    through_first = ((x @ first_layer.T) @ (torch.eye(32) + second_layer).T * scale @ head.T).sum()
    through_second = ((middle @ second_layer.T) * scale @ head.T).sum()
    expected = math.log(2 * total + 2 * through_first + 2 * through_second)  # table and head, then two matrices a layer
    assert Synflow().probe(probed) == pytest.approx(expected, rel=1e-5)
