"""ComplexFormer. Shao et al. 2025, arXiv 2505.10222."""

import pytest
import torch
from torch import Tensor

from archspec.errors import SpecError
from tests.compiler.modules.bodies import body
from tests.zoo.published import build, parameters, random

pytestmark = pytest.mark.system("complexformer")

TOKENS = torch.arange(2 * 24).reshape(2, 24) * 5 % 256


@torch.no_grad()
def test_without_adaptation_it_is_rotary_attention() -> None:
    """A gain of one and a shift of zero, as the model starts."""
    model = random(build("attention/complexformer"))
    plain = build("attention/complexformer", blocks__layer__mixer__score=None)
    for name, parameter in model.named_parameters():
        if ".score." in name:
            parameter.fill_(float(name.endswith("gain")))
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if ".score." not in name})
    torch.testing.assert_close(model(TOKENS), plain(TOKENS), atol=1e-4, rtol=0)
    assert parameters(model) - parameters(plain) == 2 * 2 * 32  # layers; gain and shift; pairs of features


def by_phases(x: Tensor, state: dict[str, Tensor], heads: int, groups: int) -> Tensor:
    """A causal layer, its scores from magnitudes and a cosine for each pair of tokens."""
    width = state["score.shift"].shape[1] * 2
    kv = heads // groups
    q, k, v = (x @ state["qkv.weight"].T).split((heads * width, kv * width, kv * width), -1)
    q, k, v = (part.unflatten(-1, (-1, width)).transpose(1, 2) for part in (q, k, v))
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    asked, told = (torch.complex(*part.chunk(2, -1)) for part in (q, k))
    between = asked.angle()[:, :, :, None] - told.angle()[:, :, None]
    gain = state["score.gain"].repeat_interleave(groups, 0)[:, None, None]
    place = torch.arange(x.shape[1]).double()
    rates = 10000.0 ** (-torch.arange(0, width, 2).double() / width)
    distance = (place[:, None] - place)[..., None] * rates
    phase = gain * between + state["score.shift"][:, None, None] + distance
    scores = (asked.abs()[:, :, :, None] * told.abs()[:, :, None] * phase.cos()).sum(-1) / width**0.5
    scores = scores.masked_fill(place[:, None] < place, float("-inf"))
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2) @ state["out.weight"].T


@pytest.mark.parametrize("groups", [1, 2])
@torch.no_grad()
def test_equals_the_sum_over_phases(groups: int) -> None:
    model = body(
        f"{{kind: attention, heads: 4, kv_heads: {4 // groups}, score: polar, position: rope}}", causal="token"
    )
    x = torch.randn(2, 12, 16, generator=torch.Generator().manual_seed(0))
    state = {name.removeprefix("attention."): value.double() for name, value in model.state_dict().items()}
    expected = by_phases(x.double(), state, 4, groups).float()
    torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=0)


def test_gradients_reach_the_adaptation_of_every_head() -> None:
    model = random(build("attention/complexformer")).train()
    model(TOKENS).square().sum().backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters() if ".score." in name}
    assert len(found) == 4
    for grad in found.values():
        assert grad is not None
        assert grad.shape[0] == 4
        assert (grad.abs().amax(1) > 1e-6).all()


def test_a_zero_query_has_a_gradient() -> None:
    model = body("{kind: attention, heads: 2, score: polar, position: rope}")
    model(torch.zeros(1, 12, 16)).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_an_odd_head_has_no_pairs() -> None:
    with pytest.raises(SpecError, match="5 features of a head are no pairs"):
        body("{kind: attention, heads: 2, head_width: 5, score: polar}")
