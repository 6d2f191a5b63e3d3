"""ELC-BERT. Georges Gabriel Charpentier and Samuel 2023, arXiv 2311.02265."""

import pytest
import torch

from tests.zoo.published import build, parameters, random

pytestmark = pytest.mark.system("elc_bert")

LAYERS = 6
TOKENS = torch.arange(48).reshape(2, 24) * 5


def mixes(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """The weights of each layer's mix, from the second layer on; the first has one input and nothing to weigh."""
    return [parameter for name, parameter in model.named_parameters() if ".history." in name]


def test_each_layer_has_one_weight_for_each_output_before_it() -> None:
    model, plain = build("elc_bert"), build("elc_bert", graph__layers__history="last")
    assert [len(weights) for weights in mixes(model)] == list(range(2, LAYERS + 1))
    assert parameters(model) == parameters(plain) + sum(range(2, LAYERS + 1))


@torch.no_grad()
def test_weights_sum_to_one() -> None:
    """Layers whose branches are closed give what they read: a mix of equal streams is that stream."""
    model = random(build("elc_bert"))
    none = random(build("elc_bert", graph__layers__times=0))
    state = model.state_dict()
    none.load_state_dict({name: state[name] for name in none.state_dict()})
    for name, parameter in model.named_parameters():
        if name.endswith(("out.weight", "out.bias", "down.weight", "down.bias")):
            parameter.zero_()
    torch.testing.assert_close(model(TOKENS), none(TOKENS), atol=1e-5, rtol=0)


@torch.no_grad()
def test_weights_are_positive() -> None:
    """However the parameters lie, the mix stays between its inputs."""
    for weights in mixes(random(build("elc_bert"))):
        shares = weights.softmax(0)
        assert shares.min() > 0


@torch.no_grad()
def test_one_hot_weights_give_a_plain_stack() -> None:
    model = random(build("elc_bert"))
    plain = build("elc_bert", graph__layers__history="last")
    state = model.state_dict()
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    assert not torch.allclose(model(TOKENS), plain(TOKENS), atol=0.1)
    for weights in mixes(model):
        weights.copy_(torch.full_like(weights, -1e4))
        weights[-1] = 0
    assert torch.equal(model(TOKENS), plain(TOKENS))


@torch.no_grad()
def test_one_hot_weights_on_the_embedding_leave_only_the_last_layer() -> None:
    model = random(build("elc_bert"))
    one = build("elc_bert", graph__layers__times=1)
    state = model.state_dict()
    last = f"layers.{LAYERS - 1}."
    one.load_state_dict({name: state[name.replace("layers.0.", last)] for name in one.state_dict()})
    for weights in mixes(model):
        weights.copy_(torch.full_like(weights, -1e4))
        weights[0] = 0
    assert torch.equal(model(TOKENS), one(TOKENS))


def test_gradients_reach_every_weight() -> None:
    model = random(build("elc_bert"))
    model(TOKENS).square().sum().backward()
    for weights in mixes(model):
        assert weights.grad is not None
        assert (weights.grad.abs() > 1e-6).all()
