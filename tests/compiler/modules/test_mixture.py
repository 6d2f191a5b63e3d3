"""Mixtures of experts against loops over tokens and experts."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad, vmap

from compiler import static_routing
from compiler.decoding import Decoding
from compiler.modules.router import Jitter
from tests.compiler.modules.bodies import assert_close, body, under
from tests.zoo.published import macs

X = torch.randn(2, 12, 16, generator=torch.Generator().manual_seed(0))
GLU, MLP = "{kind: glu, hidden: 24}", "{kind: mlp, hidden: 24, bias: true}"


def mixture(router: str = "", expert: str = GLU, count: int = 8, more: str = "") -> Any:
    """A model that is one mixture."""
    return body(
        f"{{kind: mixture, experts: {{count: {count}, body: {expert}}}, router: {{kind: top_k{router}}}{more}}}"
    )


def chosen(scores: Tensor, bias: Tensor | float, k: int, groups: int, top_groups: int) -> list[int]:
    """The experts of one token, the best first: k of those in the groups whose two best scores sum up highest."""
    ranking = (scores + bias).tolist()
    size = len(ranking) // groups
    members = [list(range(group * size, (group + 1) * size)) for group in range(groups)]
    best = sorted(members, key=lambda group: -sum(sorted((ranking[e] for e in group), reverse=True)[:2]))[:top_groups]
    return sorted((e for group in best for e in group), key=lambda e: -ranking[e])[:k]


def expert(state: dict[str, Tensor], number: int, x: Tensor) -> Tensor:
    up, down = state["experts.up.weight"][number], state["experts.down.weight"][number]
    if "experts.up.bias" in state:
        return F.gelu(x @ up + state["experts.up.bias"][number]) @ down + state["experts.down.bias"][number]
    gate, value = (x @ up).chunk(2, dim=-1)
    return (F.silu(gate) * value) @ down


def token_by_token(
    state: dict[str, Tensor], x: Tensor, *, k: int = 2, score: str = "softmax", normalize: bool = True, groups: int = 1,
    top_groups: int = 1, scale: float = 1.0,
) -> Tensor:  # fmt: skip
    """What a mixture gives for ``[tokens, width]``."""
    rows = []
    for token in x:
        logits = state["router.weight"] @ token
        scores = logits.softmax(0) if score == "softmax" else logits.sigmoid()
        found = chosen(scores, state.get("router.choose.balance_bias", 0.0), k, groups, top_groups)
        weights = scores[found]
        if normalize and k > 1:
            weights = weights / weights.sum()
        rows.append(sum(scale * w * expert(state, e, token) for w, e in zip(weights, found, strict=True)))
    return torch.stack(rows)  # type: ignore[arg-type]


ROUTERS: dict[str, dict[str, Any]] = {
    "two": {},
    "one": {"k": 1},
    "one, normalised or not is the same": {"k": 1, "normalize": False},
    "three, as they are": {"k": 3, "normalize": False},
    "all": {"k": 8},
    "sigmoid": {"score": "sigmoid"},
    "scaled": {"k": 3, "scale": 2.5},
    "groups": {"k": 3, "groups": 4, "top_groups": 2, "score": "sigmoid"},
    "one group": {"k": 2, "groups": 2},
}


@pytest.mark.parametrize("kind", [GLU, MLP], ids=["glu", "mlp"])
@pytest.mark.parametrize("name", ROUTERS)
def test_sorted_rows_give_what_a_loop_over_tokens_gives(name: str, kind: str) -> None:
    fields = ROUTERS[name]
    model = mixture("".join(f", {field}: {str(value).lower()}" for field, value in fields.items()), kind)
    x = X.clone().requires_grad_()
    y = model(x)
    names = [name for name, _ in model.named_parameters()]
    found = torch.autograd.grad(y.square().sum(), [x, *model.parameters()])
    state = {name.removeprefix("mixture."): value for name, value in model.state_dict(keep_vars=True).items()}
    expected = token_by_token(state, x.flatten(0, 1), **fields).view_as(x)
    assert_close(y, expected)
    wanted = torch.autograd.grad(expected.square().sum(), [x, *model.parameters()], allow_unused=True)
    for label, a, b in zip(["x", *names], found, wanted, strict=True):
        b = torch.zeros_like(a) if b is None else b
        assert torch.allclose(a, b, atol=2e-4, rtol=1e-4), (label, (a - b).abs().max())


@torch.no_grad()
def test_balance_bias_chooses_without_weighing() -> None:
    model = mixture(", k: 2, balance: bias, score: sigmoid")
    model.get_buffer("mixture.router.choose.balance_bias").copy_(torch.linspace(-1, 1, 8))
    state = under(model, "mixture")
    assert_close(model(X), token_by_token(state, X.flatten(0, 1), score="sigmoid").view_as(X))


@torch.no_grad()
def test_a_shared_expert_meets_every_token() -> None:
    model = mixture(more=f", shared: {GLU}")
    state = under(model, "mixture")
    gate, up = (X @ state["shared.gate_up.weight"].T).chunk(2, dim=-1)
    shared = (F.silu(gate) * up) @ state["shared.down.weight"].T
    assert_close(model(X), token_by_token(state, X.flatten(0, 1)).view_as(X) + shared)


def test_experts_without_tokens_get_no_gradient_and_break_nothing() -> None:
    model = mixture(", k: 1", count=32)
    y = model(X[:1, :3])
    y.square().sum().backward()
    gradient = model.get_parameter("mixture.experts.up.weight").grad
    assert gradient.isfinite().all()
    assert (gradient.abs().amax((1, 2)) > 0).sum() <= 3


@pytest.mark.parametrize("k", [1, 2, 4])
@torch.no_grad()
def test_capacity_drops_the_last_of_the_lower_choices(k: int) -> None:
    """An expert takes first choices before second ones, and earlier tokens before later ones."""
    model = mixture(f", k: {k}, capacity: 0.75")
    state = under(model, "mixture")
    rows = X.flatten(0, 1)
    scores = (rows @ state["router.weight"].T).softmax(-1)
    choices = [chosen(of, 0.0, k, 1, 1) for of in scores]
    room = int(0.75 * len(rows) * k / 8)
    taken = dict.fromkeys(range(8), 0)
    expected = torch.zeros_like(rows)
    dropped = 0
    for rank in range(k):
        for number, (row, found) in enumerate(zip(rows, choices, strict=True)):
            e = found[rank]
            if taken[e] == room:
                dropped += 1
                continue
            taken[e] += 1
            weight = scores[number, e] / (scores[number, found].sum() if k > 1 else 1)
            expected[number] += weight * expert(state, e, row)
    assert dropped > 2
    assert_close(model(X), expected.view_as(X))


@torch.no_grad()
def test_ample_capacity_drops_nothing() -> None:
    model, free = mixture(", capacity: 8"), mixture()
    free.load_state_dict(model.state_dict())
    assert torch.equal(model(X), free(X))


@torch.no_grad()
def test_balance_bias_falls_where_the_load_is_high() -> None:
    model = mixture(", k: 2, balance: bias, balance_rate: 0.125, score: sigmoid")
    bias = model.get_buffer("mixture.router.choose.balance_bias")
    bias.zero_()
    state = under(model, "mixture")
    scores = (X.flatten(0, 1) @ state["router.weight"].T).sigmoid()
    load = torch.zeros(8)
    for of in scores:
        load[chosen(of, 0.0, 2, 1, 1)] += 1
    model(X)
    assert not bias.any()  # inference leaves it
    model.train()(X)
    assert torch.equal(bias, 0.125 * (6 - load).sign())  # 24 tokens, 2 experts each, 8 experts


@torch.no_grad()
def test_balance_bias_evens_out_the_load() -> None:
    model = mixture(", k: 2, balance: bias, balance_rate: 0.01, score: sigmoid")
    model.get_buffer("mixture.router.choose.balance_bias").zero_()
    x = torch.randn(4, 64, 16, generator=torch.Generator().manual_seed(1)) + 0.5
    loads = []

    def watch(module: Any, given: Any, output: tuple[Tensor, ...]) -> None:
        loads.append(F.one_hot(output[1], 8).sum((0, 1)).float())

    model.get_submodule("mixture.router.choose").register_forward_hook(watch)
    model.train()
    for _ in range(150):
        model(x)
    even = 4 * 64 * 2 / 8
    assert (loads[0] - even).abs().max() > even / 2
    assert (loads[-1] - even).abs().max() < even / 8


def test_each_layer_balances_itself() -> None:
    layer = f"{{kind: mixture, experts: {{count: 8, body: {GLU}}}, router: {{kind: top_k, balance: bias}}}}"
    model = body(f"{{kind: repeat, times: 3, body: {{kind: residual, body: {layer}}}}}")
    biases = [buffer for name, buffer in model.named_buffers() if name.endswith("balance_bias")]
    assert len(biases) == len({bias.data_ptr() for bias in biases}) == 3
    for bias in biases:
        bias.zero_()
    model.train()(X)
    assert not torch.equal(biases[0], biases[1])


def test_balance_loss_is_that_of_switch() -> None:
    model = mixture(", k: 2, balance_weight: 0.1").train()
    state = under(model, "mixture")
    scores = (X.flatten(0, 1) @ state["router.weight"].T).softmax(-1)
    share = torch.zeros(8)
    for of in scores:
        share[chosen(of, 0.0, 2, 1, 1)] += 1 / (2 * 24)
    expected = 0.1 * 8 * (share * scores.mean(0)).sum()
    torch.testing.assert_close(model(X)["loss"], expected)


def test_balance_loss_is_its_weight_where_all_is_even() -> None:
    model = mixture(", k: 2, balance_weight: 0.1").train()
    with torch.no_grad():
        model.get_parameter("mixture.router.weight").zero_()
    torch.testing.assert_close(model(X)["loss"], torch.tensor(0.1))


def test_z_loss_is_the_mean_squared_log_partition() -> None:
    model = mixture(", balance: none, z_loss: 0.5").train()
    logits = X.flatten(0, 1) @ under(model, "mixture")["router.weight"].T
    torch.testing.assert_close(model(X)["loss"], 0.5 * logits.exp().sum(-1).log().square().mean())


def test_losses_of_all_mixtures_add_up_and_are_absent_in_inference() -> None:
    one = f"{{kind: residual, body: {{kind: mixture, experts: {{count: 4, body: {GLU}}}}}}}"
    model = body(f"{{kind: repeat, times: 3, body: {one}}}")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("router.weight"):
                parameter.zero_()
    assert isinstance(model(X), Tensor)
    torch.testing.assert_close(model.train()(X)["loss"], torch.tensor(3 * 0.01))


def test_losses_reach_the_router() -> None:
    for router in ("", ", balance: none, z_loss: 0.5"):
        model = mixture(router).train()
        model(X)["loss"].backward()
        assert model.get_parameter("mixture.router.weight").grad.abs().max() > 1e-6


@torch.no_grad()
def test_experts_may_be_unlike() -> None:
    others = "{kind: depthwise_convolution, size: 3}, {kind: project, width: 16}"
    model = body(f"{{kind: mixture, experts: [{GLU}, {MLP}, {others}], router: {{kind: top_k, k: 2}}}}")
    outputs = []
    for number in range(4):
        alone = model.get_submodule(f"mixture.experts.bodies.{number}")
        outputs.append(alone(X).flatten(0, 1))
    rows = X.flatten(0, 1)
    scores = (rows @ under(model, "mixture")["router.weight"].T).softmax(-1)
    expected = torch.zeros_like(rows)
    for number, of in enumerate(scores):
        found = chosen(of, 0.0, 2, 1, 1)
        for e in found:
            expected[number] += of[e] / of[found].sum() * outputs[e][number]
    assert_close(model(X), expected.view_as(X))


@torch.no_grad()
def test_label_router_sends_a_token_to_the_expert_of_its_label() -> None:
    router = "{kind: label_router, label: speaker}"
    model = body(
        f"{{kind: mixture, experts: {{count: 3, body: {GLU}}}, router: {router}}}", interface="labels: {speaker: 3}"
    )
    labels = torch.randint(0, 3, (2, 12), generator=torch.Generator().manual_seed(0))
    state = under(model, "mixture")
    expected = [expert(state, int(e), token) for token, e in zip(X.flatten(0, 1), labels.flatten(), strict=True)]
    assert_close(model(X, labels), torch.stack(expected).view_as(X))


@pytest.mark.parametrize(("count", "k"), [(4, 1), (4, 2), (64, 2), (64, 8)])
def test_a_token_costs_k_experts_their_sum_and_the_router(count: int, k: int) -> None:
    model = mixture(f", k: {k}", count=count).to("meta")
    assert macs(model, torch.empty(2, 32, 16)) == 64 * (count * 16 + k * 3 * 16 * 24 + k * 16)


@pytest.mark.parametrize(
    "experts", [f"[{MLP}, {MLP}, {MLP}, {MLP}]", "{count: 4, body: [{kind: mlp, hidden: 24}, identity]}"]
)
def test_a_token_costs_one_of_experts_of_any_kind(experts: str) -> None:
    model = body(f"{{kind: mixture, experts: {experts}, router: {{kind: top_k, k: 1}}}}").to("meta")
    assert macs(model, torch.empty(2, 32, 16)) == 64 * (4 * 16 + 2 * 16 * 24)


@pytest.mark.parametrize("router", [", k: 1, balance: none, capacity: 0.5", ""])
@torch.no_grad()
def test_padding_takes_no_capacity_and_makes_no_loss(router: str) -> None:
    model = body(f"{{kind: mixture, experts: {{count: 4, body: {GLU}}}, router: {{kind: top_k{router}}}}}",
                 interface="padding: true").train()  # fmt: skip
    valid = (torch.arange(12) >= 6).expand(2, 12)  # the padding comes first
    other = torch.where(valid[..., None], X, X + 3)
    one, two = model(X, valid), model(other, valid)
    if isinstance(one, dict):
        torch.testing.assert_close(one["loss"], two["loss"])
    else:
        torch.testing.assert_close(one[valid], two[valid])


ANY_ROUTER = [
    "{kind: top_k}",
    "{kind: top_k, k: 1, score: sigmoid, bias: true}",
    "{kind: top_k, k: 3, order: 2.0}",
    "{kind: top_k, k: 2, groups: 4, top_groups: 2, group_score: best, normalize: false, scale: 2.5}",
    "{kind: top_k, k: 3, score: sigmoid, balance: bias}",
    "{kind: top_k, k: 2, capacity: 0.75}",
    "{kind: top_k, k: 2, room: 3}",
    "{kind: sparse_mixer, k: 3, tolerance: 0.5}",
]


@pytest.mark.parametrize("weigh", ["output", "input"])
@pytest.mark.parametrize("router", ANY_ROUTER)
@torch.no_grad()
def test_stacked_dispatched_and_static_experts_are_one_mixture(router: str, weigh: str) -> None:
    """Grouped products, experts on their own tokens, and all experts on all tokens."""
    more = f"router: {router}, weigh: {weigh}"
    stacked = body(f"{{kind: mixture, experts: {{count: 8, body: {MLP}}}, {more}}}")
    listed = body(f"{{kind: mixture, experts: [{', '.join([MLP] * 8)}], {more}}}")
    state = under(stacked, "mixture")
    for name, value in under(listed, "mixture").items():
        if ".bodies." in name:
            _, _, number, _, role, part = name.split(".")
            value.copy_(state[f"experts.{role}.{part}"][int(number)].t())
        else:
            value.copy_(state[name])
    expected = stacked(X)
    assert_close(listed(X), expected)
    static_routing(listed)
    assert_close(listed(X), expected)


@torch.no_grad()
def test_room_is_for_the_first_tokens_of_each_sequence() -> None:
    model = mixture(", k: 2, room: 3")
    state = under(model, "mixture")
    expected = torch.zeros_like(X)
    dropped = 0
    for sample, tokens in enumerate(X):
        taken = dict.fromkeys(range(8), 0)
        for place, token in enumerate(tokens):
            scores = (state["router.weight"] @ token).softmax(0)
            found = chosen(scores, 0.0, 2, 1, 1)
            for e in found:
                taken[e] += 1
                dropped += taken[e] > 3
                if taken[e] <= 3:
                    expected[sample, place] += scores[e] / scores[found].sum() * expert(state, e, token)
    assert dropped > 5
    assert_close(model(X), expected)


@pytest.mark.parametrize("start", [None, torch.tensor([0, 5])])
@torch.no_grad()
def test_room_is_counted_from_where_decoding_was(start: Tensor | None) -> None:
    model = body(
        f"{{kind: mixture, experts: {{count: 4, body: {GLU}}}, router: {{kind: top_k, k: 1, room: 2}}}}", causal="token"
    )
    whole = model(X) if start is None else torch.cat([model(x[None, pad:]) for x, pad in zip(X, start, strict=True)], 1)
    decoding, found = Decoding(model, start=start), []
    for size in (3, 1, 1, 5, 2):
        found.append(decoding(X[:, decoding.position : decoding.position + size]))
    y = torch.cat(found, dim=1)
    y = y if start is None else torch.cat([one[None, pad:] for one, pad in zip(y, start, strict=True)], 1)
    assert_close(y, whole)


@torch.no_grad()
def test_one_decoded_token_reads_the_weights_of_its_experts_alone() -> None:
    model = body(
        f"{{kind: mixture, experts: {{count: 8, body: {GLU}}}, router: {{kind: top_k, k: 2}}}}", causal="token"
    )
    decoding, whole = Decoding(model), model(X[:1])
    state = under(model, "mixture")
    assert_close(decoding(X[:1, :5]), whole[:, :5])
    found = chosen((state["router.weight"] @ X[0, 5]).softmax(0), 0.0, 2, 1, 1)
    for e in set(range(8)) - set(found):
        for matrix in ("up", "down"):
            model.get_parameter(f"mixture.experts.{matrix}.weight")[e] = float("nan")
    assert_close(decoding(X[:1, 5:6]), whole[:, 5:6])


@torch.no_grad()
def test_jitter_is_noise_around_one_in_training() -> None:
    for field, router in ((", jitter: 0.1", ""), ("", ", jitter: 0.1")):
        model = mixture(", balance: none" + router, more=field)
        assert torch.equal(model(X), model(X))
        model.train()
        assert not torch.equal(model(X), model(X))
        jitter = next(module for module in model.modules() if isinstance(module, Jitter))
        ratio = jitter(torch.ones(1000))
        assert 0.9 <= ratio.min() < 0.91 and 1.09 < ratio.max() <= 1.1


STATIC = [
    f"{{kind: mixture, experts: {{count: 4, body: {MLP}}}}}",
    f"{{kind: mixture, experts: [{GLU}, {MLP}, identity], router: {{kind: sparse_mixer, tolerance: 0.5}}}}",
    "{kind: mixture_of_attention, experts: 4, heads: 2}",
]


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("node", STATIC)
def test_static_routing_exports_and_maps(node: str) -> None:
    model = body(node)
    expected = model(X)
    static_routing(model)
    assert_close(model(X), expected)
    assert_close(torch.export.export(model, (X,), strict=False).module()(X), expected)
    parameters = dict(model.named_parameters())

    def loss(parameters: Any, x: Tensor) -> Tensor:
        return functional_call(model, parameters, (x[None],)).square().sum()

    each = vmap(grad(loss), in_dims=(None, 0))(parameters, X)
    for number, x in enumerate(X):
        for name, value in grad(loss)(parameters, x).items():
            torch.testing.assert_close(each[name][number], value, atol=1e-5, rtol=1e-5)
    static_routing(model, on=False)
    assert torch.equal(model(X), expected)
