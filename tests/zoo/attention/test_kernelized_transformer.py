"""Kernelized Transformer. Chowdhury et al. 2021, arXiv 2110.08323."""

from typing import Any

import pytest
import torch
from torch import Tensor

from archspec.errors import SpecError
from search.cost.price import price
from tests.compiler.modules.bodies import body
from tests.zoo.published import build, spec

pytestmark = pytest.mark.system("kernelized_transformer")

NAME = "attention/kernelized_transformer"
GENERATED = "{kind: generated_features, count: %d, noise: 4, kernel: %s, generator: {kind: mlp, hidden: 8, width: 8}}"
X = torch.randn(2, 40, 16, generator=torch.Generator().manual_seed(0)) / 3


def mixture(count: int, kernel: str, components: int = 1) -> str:
    return f"{{kind: gaussian_mixture_features, count: {count}, kernel: {kernel}, components: {components}}}"


def node(features: str) -> str:
    return f"{{name: a, kind: linear_attention, heads: 2, features: {features}}}"


def by_kernel(state: dict[str, Tensor], kernel: str) -> Tensor:
    """The attention with the exact kernel of a mixture, pair by pair: that of ``rbf`` is
    ``sum_c share_c exp(-|scale_c d|^2 / 2) cos(mean_c d)`` for a query and a key that differ by d."""
    q, k, v = (part.unflatten(-1, (2, 8)).transpose(1, 2) for part in (X @ state["qkv.weight"].T).chunk(3, dim=-1))
    q, k = q / 8**0.25, k / 8**0.25
    far, weights = q[:, :, :, None] - k[:, :, None], torch.zeros(())
    mean, scale = (state[f"features.{name}"][:, :, None, None] for name in ("mean", "scale"))
    share = state.get("features.share", torch.zeros(2, 1)).softmax(-1)
    for c in range(mean.shape[1]):
        if kernel == "rbf":
            one = ((far * scale[:, c]).square().sum(-1) / -2).exp() * (far * mean[:, c]).sum(-1).cos()
        else:  # of E exp(w (q + k)) for a Gaussian w
            both = q[:, :, :, None] + k[:, :, None]
            outside = (q.square().sum(-1)[..., None] + k.square().sum(-1)[:, :, None]) / 2
            one = ((both * scale[:, c]).square().sum(-1) / 2 + (both * mean[:, c]).sum(-1) - outside).exp()
        weights = weights + share[:, c, None, None] * one
    return (weights / weights.sum(-1, keepdim=True) @ v).transpose(1, 2).flatten(2) @ state["out.weight"].T


def plain(model: Any) -> Any:
    """With the frequencies of the plain kernel."""
    model.a.features.mean.zero_()
    model.a.features.scale.fill_(1)
    return model


@pytest.mark.parametrize("kernel", ["rbf", "softmax"])
@torch.no_grad()
def test_comes_to_the_exact_kernel_with_more_features(kernel: str) -> None:
    errors = []
    for count in (64, 16384):
        model = plain(body(node(mixture(count, kernel)), "token: 40"))
        expected = by_kernel(model.a.state_dict(), kernel)
        errors.append(((model(X) - expected).square().mean().sqrt() / expected.std()).item())
    assert errors[1] < 0.03
    assert errors[1] < errors[0] / 5  # 16 if the error falls with the root of the number
    state = model.a.state_dict()  # and the exact kernel is what it is said to be
    q, k, v = (part.unflatten(-1, (2, 8)).transpose(1, 2) for part in (X @ state["qkv.weight"].T).chunk(3, dim=-1))
    scores = q @ k.mT / 8**0.5
    if kernel == "rbf":
        scores = scores - (q.square().sum(-1)[..., None] + k.square().sum(-1)[:, :, None]) / 2 / 8**0.5
    same = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2) @ state["out.weight"].T
    torch.testing.assert_close(expected, same, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kernel", ["rbf", "softmax"])
@torch.no_grad()
def test_a_mixture_comes_to_the_mean_of_its_kernels(kernel: str) -> None:
    model = body(node(mixture(2**15, kernel, 2)), "token: 40")
    model.a.features.mean.mul_(0.5)
    model.a.features.scale.mul_(0.7)  # the exponential of a large product is seldom met by chance
    state = model.a.state_dict()
    assert (state["features.share"][:, 0] - state["features.share"][:, 1]).abs().min() > 0.01
    expected = by_kernel(state, kernel)
    assert ((model(X) - expected).square().mean().sqrt() / expected.std()).item() < 0.03


@pytest.mark.parametrize("features", [mixture(8, "rbf", 2), mixture(8, "softmax", 4), GENERATED % (8, "rbf")])
def test_the_distribution_learns(features: str) -> None:
    model = body(node(features), "token: 40")
    model.train()(X).square().sum().backward()
    learned = {name: p.grad for name, p in model.a.features.named_parameters()}
    assert learned
    assert all(grad is not None and grad.abs().max() > 1e-6 for grad in learned.values())


@pytest.mark.parametrize("kernel", ["rbf", "softmax"])
@torch.no_grad()
def test_a_generator_that_gives_its_noise_is_the_plain_kernel(kernel: str) -> None:
    generator = "{kind: mlp, hidden: 8, width: 8, activation: identity}"
    generated = f"{{kind: generated_features, count: 16, noise: 8, kernel: {kernel}, generator: {generator}}}"
    ours, other = body(node(generated), "token: 40"), plain(body(node(mixture(16, kernel)), "token: 40"))
    for matrix in (ours.a.features.generator.up, ours.a.features.generator.down):
        matrix.weight.copy_(torch.eye(8))
    other.a.qkv.weight.copy_(ours.a.qkv.weight)
    other.a.out.weight.copy_(ours.a.out.weight)
    torch.testing.assert_close(ours(X), other(X), atol=1e-6, rtol=0)


def test_cost_grows_with_the_length() -> None:
    short, long = (price(spec(NAME), length=length, device="l4").forward for length in (1024, 4096))
    assert 3.99 < long / short < 4.01
    plain = {"kind": "attention", "heads": 4}
    short, long = (
        price(spec(NAME, blocks__layer__mixer=plain), length=length, device="l4").forward for length in (1024, 4096)
    )
    assert long / short > 8


@torch.no_grad()
def test_a_seed_draws_the_same_noise_again() -> None:
    one, same, other = (
        build(NAME, blocks__layer__mixer__features__seed=seed).layers.get_submodule("0.mixer.body.features.noise")
        for seed in (0, 0, 1)
    )
    assert torch.equal(one.numbers, same.numbers)
    assert not torch.equal(one.numbers, other.numbers)


@pytest.mark.parametrize(
    ("features", "said"),
    [
        (mixture(9, "rbf", 2), "9 frequencies cannot be shared by 2 Gaussians"),
        ("{kind: generated_features, count: 8, noise: 4, generator: {kind: mlp, hidden: 8}}", "not 8 frequencies"),
    ],
)
def test_features_that_do_not_fit_are_refused(features: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        body(node(features))


def test_one_feature_map_alone() -> None:
    with pytest.raises(SpecError, match="relu, and features"):
        body("{kind: linear_attention, heads: 2, feature_map: relu, features: hedgehog}")
