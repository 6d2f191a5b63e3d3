"""Atlas. Behrouz et al. 2025, arXiv 2505.23735."""

import math
import time
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.errors import SpecError
from archspec.kinds.neural_memory import NeuralMemory
from compiler.decoding import Decoding
from compiler.modules import neural_memory as modules
from search.cost.breakdown import breakdown
from tests.compiler.modules.bodies import body, under
from tests.models import inputs
from tests.zoo.published import build, parameters, random, spec

pytestmark = pytest.mark.system("atlas")
NAME = "recurrence/atlas"
WIDTH, HEADS = 6, 2
OPTIMISERS = {"descent": {}, "momentum": {"momentum": True}, "muon": {"momentum": True, "newton_schulz": 5}}


def memory(chunk: int, hidden: int | None = 9, **options: Any) -> tuple[modules.Memory, list[Tensor]]:
    """A memory and the first weights of its matrices, for keys of ten features."""
    settings = {"heads": HEADS, "key_width": WIDTH, "hidden": hidden, "chunk": chunk, "learning_rate": 0.3} | options
    generator = torch.Generator().manual_seed(1)
    shapes = [(10, hidden), (hidden, WIDTH)] if hidden else [(10, WIDTH)]
    weights = [torch.randn(HEADS, *shape, generator=generator, dtype=torch.float64) / 3 for shape in shapes]
    return modules.Memory(NeuralMemory(**settings)), [w.requires_grad_() for w in weights]


def given(module: modules.Memory, tokens: int) -> list[Tensor]:
    """Queries and keys of ten features, values, gates."""
    generator = torch.Generator().manual_seed(0)
    widths = (10, 10, WIDTH, 2 + module.momentum + module.window)
    q, k, v, gates = (torch.randn(2, tokens, HEADS, w, generator=generator, dtype=torch.float64) for w in widths)
    return [x.requires_grad_() for x in (F.normalize(q, dim=-1), F.normalize(k, dim=-1), v, gates)]


def muon(step: Tensor) -> Tensor:
    """Five Newton-Schulz iterations by the singular values that they change."""
    u, s, v = torch.linalg.svd(step, full_matrices=False)
    s = s / s.norm()
    for _ in range(5):
        s = 3.4445 * s - 4.775 * s**3 + 2.0315 * s**5
    return u @ torch.diag(s) @ v


def one_by_one(module: modules.Memory, q: Tensor, k: Tensor, v: Tensor, gates: Tensor, weights: list[Tensor]) -> Tensor:
    """The equations of the paper for one token after another of one head, with torch's gradient of the loss."""

    def recall(matrices: list[Tensor], x: Tensor) -> Tensor:
        return x @ matrices[0] if len(matrices) == 1 else F.gelu(x @ matrices[0]) @ matrices[1]

    now, anchor, read = list(weights), list(weights), []
    speed = [torch.zeros_like(w) for w in weights]
    for t in range(len(k)):
        if t % module.chunk == 0:
            anchor = list(now)
        opened = gates[t].sigmoid()
        window = range(max(0, t - module.window + 1), t + 1)
        loss = sum(opened[len(opened) - module.window + t - i] * (recall(anchor, k[i]) - v[i]).square().sum() / 2
                   for i in window)  # fmt: skip
        slopes = torch.autograd.grad(loss, anchor, create_graph=True)
        for number, slope in enumerate(slopes):
            speed[number] = (opened[2] * speed[number] if module.momentum else 0) + slope
            step = muon(speed[number]) if module.iterations else speed[number]
            now[number] = opened[1] ** (1 / 16) * now[number] - 0.3 * opened[0] * step
        read.append(recall(now, q[t]))
    return torch.stack(read)


@pytest.mark.parametrize("hidden", [None, 9])
@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize(("window", "chunk"), [(1, 1), (3, 4), (5, 2)])
def test_chunks_are_the_equations_token_by_token(optimiser: str, hidden: int | None, window: int, chunk: int) -> None:
    """Values and gradients through the inner steps, also of the first weights."""
    module, weights = memory(chunk, hidden, window=window, **OPTIMISERS[optimiser])
    tensors, found = given(module, 7), []
    apart = [[x[n, :, h] for x in tensors] for n in range(2) for h in range(HEADS)]
    heads = [[w[h] for w in weights] for _ in range(2) for h in range(HEADS)]
    naive = torch.stack([one_by_one(module, *x, w) for x, w in zip(apart, heads, strict=True)])
    for read in (module(*tensors, None, *weights), naive.unflatten(0, (2, HEADS)).transpose(1, 2)):
        loss = (read * torch.linspace(-1, 1, read.numel(), dtype=read.dtype).view_as(read)).sum()
        found.append([read, *torch.autograd.grad(loss, [*tensors, *weights], retain_graph=True)])
    for one, other in zip(*found, strict=True):
        assert other.abs().max() > 1e-3
        torch.testing.assert_close(one, other, atol=1e-7, rtol=1e-5)


@torch.no_grad()
def test_one_token_of_a_matrix_is_the_delta_rule() -> None:
    shared = "heads: 2, norm: absent, gate: none, convolution: 0"
    delta = body(f"{{kind: gated_delta_rule, activation: identity, {shared}}}", "token: n", causal="token")
    found = body(f"{{kind: neural_memory, chunk: 1, learning_rate: 1.0, {shared}}}", "token: n", causal="token")
    theirs = under(delta, "gated_delta_rule")
    beta = theirs["inputs.weight"][48:50]
    theirs["rate"].fill_(-100.0)  # nothing is forgotten
    gates = torch.zeros(2, 3, 16)  # of each head: learning rate, what is kept, the token itself
    gates[:, 0] = beta
    bias = torch.tensor([[0.0, 1e4, 1e4]] * 2)
    weights = {"inputs.weight": theirs["inputs.weight"][:48], "out.weight": theirs["out.weight"]}
    weights |= {"gates.weight": gates.flatten(0, 1), "gates.bias": bias.flatten(), "memory_0": torch.zeros(2, 8, 8)}
    found.get_submodule("neural_memory").load_state_dict(weights)
    x = torch.randn(2, 40, 16)
    expected = delta(x) * 8**0.5  # theirs reads with queries divided by it
    assert expected.std() > 0.1
    torch.testing.assert_close(found(x), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_products_are_a_polynomial_of_the_product() -> None:
    layer = "{kind: linear_attention, heads: 2, head_width: 5, features: {kind: polynomial_features, degree: 3}}"
    features = body(layer, "token: n", causal="token").linear_attention.features
    features.weight.copy_(torch.tensor([0.5, 1.0, 0.3, 2.0]))
    q, k = torch.randn(2, 4, 2, 5), torch.randn(2, 4, 2, 5)
    one, other = (features.products(x, features.weight) for x in (q, k))
    assert one.shape[-1] == math.comb(5 + 3, 3)
    x = (q * k).sum(-1)
    torch.testing.assert_close((one * other).sum(-1), 0.25 + x + 0.09 * x**2 + 4 * x**3, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_chunks_are_faster(optimiser: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, weights = memory(16, window=4, learning_rate=None, **OPTIMISERS[optimiser])
    at_once = modules.advance

    def apart(state: dict[str, Tensor], *pieces: Tensor, iterations: int) -> Tensor:
        tokens = range(pieces[0].shape[2])
        read = [at_once(state, *(x[:, :, t : t + 1] for x in pieces), iterations=iterations) for t in tokens]
        return torch.cat(read, dim=2)

    def run() -> tuple[float, Tensor]:
        tensors, start = given(module, 1024), time.process_time()
        read = module(*tensors, None, *weights)
        read.square().sum().backward()
        return time.process_time() - start, read

    run()
    quick, read = min((run() for _ in range(2)), key=lambda found: found[0])
    monkeypatch.setattr(modules, "advance", apart)
    slow, expected = run()
    torch.testing.assert_close(read, expected, atol=1e-4, rtol=1e-4)
    assert quick < slow


@torch.no_grad()
def test_what_is_kept_does_not_grow() -> None:
    alone = {"blocks__layer__mixer": {"kind": "memory"}}
    model, kept = random(build(NAME, **alone)), []
    decoding = Decoding(model)
    for size in (33, 1, 64):
        decoding(inputs(model.spec, batch=1, length=size)[0])
        kept.append(sum(x.numel() for x in decoding.tensors()))
    cost = breakdown(spec(NAME, **alone), device="l4", dtype="float32", fitting=False).memory
    assert kept == [cost.cache_per_sequence / 4] * 3 and cost.cache_per_token == 0


def test_the_published_size() -> None:
    model = build("recurrence/atlas_170m", device="meta")
    assert parameters(model) == 165_270_948 == pytest.approx(170e6, rel=0.04)


def test_a_residual_of_keys_needs_values_as_wide() -> None:
    with pytest.raises(SpecError, match="keys of 8 features are added to values of 6"):
        body("{kind: neural_memory, heads: 2, hidden: 4, value_width: 6}", "token: n", causal="token")


def test_what_has_no_order_is_refused() -> None:
    with pytest.raises(SpecError, match="a recurrence reads features along one axis"):
        body("{kind: neural_memory, heads: 2}", "row: 3, column: 4")
