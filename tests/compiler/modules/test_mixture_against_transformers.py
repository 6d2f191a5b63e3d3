"""Mixtures as the families of `transformers` have them: the same outputs from the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compiler.logical import logical
from tests.compiler.modules.bodies import assert_close, body

transformers = pytest.importorskip("transformers")
WIDTH, INNER = 16, 24
X = torch.randn(2, 12, WIDTH, generator=torch.Generator().manual_seed(0))
SIZES = {"hidden_size": WIDTH, "intermediate_size": INNER, "moe_intermediate_size": INNER}


def reference(family: str, name: str, config: str, **fields: Any) -> tuple[nn.Module, Any]:
    """A module of `transformers` with random weights, and its configuration."""
    import importlib

    room = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    made = getattr(transformers, config)(**SIZES, **fields)
    module = getattr(room, name)(made).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in [*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())]:
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.4)
    return module, made


def mixture(router: str, *, count: int = 8, expert: str = f"{{kind: glu, hidden: {INNER}}}", more: str = "") -> Any:
    return body(f"{{name: m, kind: mixture, experts: {{count: {count}, body: {expert}}}, router: {router}{more}}}",
                causal="token")  # fmt: skip


@torch.no_grad()
def take(model: nn.Module, **given: Tensor) -> None:
    """Fills the model's weights by their logical names, which follow ``m.``; experts' matrices come stacked."""
    views = logical(model)
    filled = set()
    for name, tensor in given.items():
        path = "m." + name.replace("__", ".")
        if "{e}" in path:
            for expert, one in enumerate(tensor):
                views[path.format(e=expert)].copy_(one)
                filled.add(path.format(e=expert))
        else:
            views[path].copy_(tensor)
            filled.add(path)
    assert filled == views.keys()


def stacked(gate_up: Tensor, down: Tensor) -> dict[str, Tensor]:
    """Experts of ``gate_up`` ``[experts, 2 inner, width]`` and ``down`` ``[experts, width, inner]``."""
    gate, up = gate_up.chunk(2, dim=1)
    return {"experts.{e}.gate.weight": gate, "experts.{e}.up.weight": up, "experts.{e}.down.weight": down}


def first(found: Any) -> Tensor:
    return found[0] if isinstance(found, tuple) else found


# family, block, configuration, its fields, our router, more of the mixture, name of their router's weight
PLAIN: dict[str, tuple[str, str, str, dict[str, Any], str, str]] = {
    "mixtral": ("mixtral", "MixtralSparseMoeBlock", "MixtralConfig",
                {"num_local_experts": 8, "num_experts_per_tok": 2}, "{kind: top_k, k: 2}", "gate.weight"),
    "mixtral, one expert": ("mixtral", "MixtralSparseMoeBlock", "MixtralConfig",
                {"num_local_experts": 8, "num_experts_per_tok": 1}, "{kind: top_k, k: 1, normalize: true}",
                "gate.weight"),
    "qwen3_moe": ("qwen3_moe", "Qwen3MoeSparseMoeBlock", "Qwen3MoeConfig",
                {"num_experts": 8, "num_experts_per_tok": 3, "norm_topk_prob": True}, "{kind: top_k, k: 3}",
                "gate.weight"),
    "olmoe": ("olmoe", "OlmoeSparseMoeBlock", "OlmoeConfig", {"num_experts": 8, "num_experts_per_tok": 3},
                "{kind: top_k, k: 3, normalize: false}", "gate.weight"),
    "granitemoe": ("granitemoe", "GraniteMoeMoE", "GraniteMoeConfig",
                {"num_local_experts": 8, "num_experts_per_tok": 3}, "{kind: top_k, k: 3}", "router.weight"),
    "granitemoe, one expert": ("granitemoe", "GraniteMoeMoE", "GraniteMoeConfig",
                {"num_local_experts": 8, "num_experts_per_tok": 1}, "{kind: top_k, k: 1, normalize: true}",
                "router.weight"),
    "jamba": ("jamba", "JambaSparseMoeBlock", "JambaConfig", {"num_experts": 8, "num_experts_per_tok": 2},
                "{kind: top_k, k: 2, normalize: false}", "router.weight"),
    "phimoe": ("phimoe", "PhimoeSparseMoeBlock", "PhimoeConfig",
                {"num_local_experts": 8, "num_experts_per_tok": 2, "router_jitter_noise": 0.2},
                "{kind: sparse_mixer, tolerance: 0.2}", "router.weight"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
@torch.no_grad()
def test_a_mixture_without_more(name: str) -> None:
    family, block, config, fields, router, weight = PLAIN[name]
    theirs, _ = reference(family, block, config, **fields)
    state = theirs.state_dict()
    ours = mixture(router)
    experts = stacked(state["experts.gate_up_proj"], state["experts.down_proj"])
    take(ours, **{"router.weight": state[weight]}, **experts)
    assert_close(ours(X), first(theirs(X.clone())))


@pytest.mark.parametrize("normalize", [False, True])
@torch.no_grad()
def test_qwen2_moe_weighs_its_shared_expert(normalize: bool) -> None:
    theirs, _ = reference("qwen2_moe", "Qwen2MoeSparseMoeBlock", "Qwen2MoeConfig", num_experts=8,
                          num_experts_per_tok=3, norm_topk_prob=normalize,
                          shared_expert_intermediate_size=20)  # fmt: skip
    state = theirs.state_dict()
    ours = mixture(f"{{kind: top_k, k: 3, normalize: {str(normalize).lower()}}}",
                   more=", shared: {kind: glu, hidden: 20}, shared_gate: true")  # fmt: skip
    take(ours, **{"router.weight": state["gate.weight"], "shared_gate.weight": state["shared_expert_gate.weight"]},
         **stacked(state["experts.gate_up_proj"], state["experts.down_proj"]),
         **shared(state, "shared_expert"))  # fmt: skip
    assert_close(ours(X), theirs(X))


def shared(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"shared.{role}.weight": state[f"{prefix}.{role}_proj.weight"] for role in ("gate", "up", "down")}


@pytest.mark.parametrize("method", ["greedy", "group_limited_greedy"])
@torch.no_grad()
def test_deepseek_v2_looks_into_the_groups_with_the_best_experts(method: str) -> None:
    theirs, _ = reference("deepseek_v2", "DeepseekV2Moe", "DeepseekV2Config", n_routed_experts=16,
                          num_experts_per_tok=3, n_group=4, topk_group=2, topk_method=method, n_shared_experts=2,
                          routed_scaling_factor=2.5, num_attention_heads=4)  # fmt: skip
    state = theirs.state_dict()
    groups = ", groups: 4, top_groups: 2, group_score: best" if "group" in method else ""
    ours = mixture(f"{{kind: top_k, k: 3, normalize: false, scale: 2.5{groups}}}", count=16,
                   more=f", shared: {{kind: glu, hidden: {2 * INNER}}}")  # fmt: skip
    take(ours, **{"router.weight": state["gate.weight"]}, **shared(state, "shared_experts"),
         **stacked(state["experts.gate_up_proj"], state["experts.down_proj"]))  # fmt: skip
    assert_close(ours(X), theirs(X))


@pytest.mark.parametrize("normalize", [False, True])
@torch.no_grad()
def test_deepseek_v3_chooses_with_a_bias(normalize: bool) -> None:
    theirs, _ = reference("deepseek_v3", "DeepseekV3MoE", "DeepseekV3Config", n_routed_experts=16,
                          num_experts_per_tok=3, n_group=4, topk_group=2, norm_topk_prob=normalize, n_shared_experts=1,
                          routed_scaling_factor=2.5)  # fmt: skip
    state = theirs.state_dict()
    ours = mixture(f"{{kind: top_k, k: 3, score: sigmoid, balance: bias, groups: 4, top_groups: 2, scale: 2.5, "
                   f"normalize: {str(normalize).lower()}}}", count=16,
                   more=f", shared: {{kind: glu, hidden: {INNER}}}")  # fmt: skip
    take(ours, **{"router.weight": state["gate.weight"],
                  "router.choose.balance_bias": state["gate.e_score_correction_bias"]},
         **shared(state, "shared_experts"),
         **stacked(state["experts.gate_up_proj"], state["experts.down_proj"]))  # fmt: skip
    assert_close(ours(X), theirs(X))


@pytest.mark.parametrize("limit", [7.0, 0.5])
@torch.no_grad()
def test_gpt_oss_has_biases_and_limits(limit: float) -> None:
    theirs, _ = reference("gpt_oss", "GptOssMLP", "GptOssConfig", num_local_experts=8, num_experts_per_tok=3,
                          swiglu_limit=limit)  # fmt: skip
    state = theirs.state_dict()
    glu = f"{{kind: glu, hidden: {INNER}, bias: true, alpha: 1.702, limit: {limit}, up_offset: 1.0}}"
    ours = mixture("{kind: top_k, k: 3, bias: true}", expert=glu)
    gate_up, bias = state["experts.gate_up_proj"].mT, state["experts.gate_up_proj_bias"]
    take(ours, **{f"router.{part}": state[f"router.{part}"] for part in ("weight", "bias")},
         **{"experts.{e}.gate.weight": gate_up[:, ::2], "experts.{e}.up.weight": gate_up[:, 1::2],
            "experts.{e}.gate.bias": bias[:, ::2], "experts.{e}.up.bias": bias[:, 1::2],
            "experts.{e}.down.weight": state["experts.down_proj"].mT,
            "experts.{e}.down.bias": state["experts.down_proj_bias"]})  # fmt: skip
    assert_close(ours(X), first(theirs(X)))


@pytest.mark.parametrize("k", [1, 2])
@torch.no_grad()
def test_llama4_weighs_what_experts_read(k: int) -> None:
    theirs, _ = reference("llama4", "Llama4TextMoe", "Llama4TextConfig", num_local_experts=8, num_experts_per_tok=k)
    state = theirs.state_dict()
    ours = mixture(f"{{kind: top_k, k: {k}, score: sigmoid, normalize: false}}",
                   more=f", weigh: input, shared: {{kind: glu, hidden: {INNER}}}")  # fmt: skip
    take(ours, **{"router.weight": state["router.weight"]}, **shared(state, "shared_expert"),
         **stacked(state["experts.gate_up_proj"].mT, state["experts.down_proj"].mT))  # fmt: skip
    assert_close(ours(X), first(theirs(X)).view_as(X))


@pytest.mark.parametrize(("k", "order"), [(1, 1.0), (3, 1.0), (3, 2.0), (3, None)])
@torch.no_grad()
def test_dbrx_divides_by_a_norm(k: int, order: float | None) -> None:
    config = transformers.DbrxConfig(
        d_model=WIDTH,
        ffn_config={"hidden_size": WIDTH, "ffn_hidden_size": INNER, "moe_num_experts": 8, "moe_top_k": k,
                    "moe_normalize_expert_weights": order},
    )  # fmt: skip
    from transformers.models.dbrx.modeling_dbrx import DbrxFFN

    theirs = DbrxFFN(config).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in theirs.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    state = theirs.state_dict()
    divided = "normalize: false" if order is None else f"normalize: true, order: {order}"
    ours = mixture(f"{{kind: top_k, k: {k}, {divided}}}")
    w1, v1, w2 = (state[f"experts.mlp.{name}"].unflatten(0, (8, INNER)) for name in ("w1", "v1", "w2"))
    take(ours, **{"router.weight": state["router.layer.weight"], "experts.{e}.gate.weight": w1,
                  "experts.{e}.up.weight": v1, "experts.{e}.down.weight": w2.mT})  # fmt: skip
    assert_close(ours(X), theirs(X))


@torch.no_grad()
def test_jetmoe_adds_a_vector() -> None:
    theirs, _ = reference("jetmoe", "JetMoeMoE", "JetMoeConfig", num_local_experts=8, num_experts_per_tok=2)
    state = theirs.state_dict()
    ours = mixture("{kind: top_k, k: 2}", more=", bias: true")
    take(ours, **{"router.weight": state["router.layer.weight"], "bias": state["bias"]},
         **stacked(state["input_linear.weight"], state["output_linear.weight"]))  # fmt: skip
    assert_close(ours(X), first(theirs(X)))


@pytest.mark.parametrize("k", [1, 3])
@torch.no_grad()
def test_jetmoe_chooses_heads(k: int) -> None:
    theirs, config = reference("jetmoe", "JetMoeAttention", "JetMoeConfig", num_local_experts=6, num_experts_per_tok=k,
                               kv_channels=6, num_key_value_heads=2, attn_implementation="eager")  # fmt: skip
    from transformers.models.jetmoe.modeling_jetmoe import JetMoeRotaryEmbedding

    state = theirs.state_dict()
    ours = body(f"{{name: m, kind: mixture_of_attention, experts: 6, heads: 2, head_width: 6, bias: true, "
                f"position: rope, router: {{kind: top_k, k: {k}, normalize: true}}}}", causal="token")  # fmt: skip
    key, value = state["kv_proj.weight"].chunk(2)
    take(ours, **{"router.weight": state["experts.router.layer.weight"], "key.weight": key, "value.weight": value,
                  "experts.{e}.query.weight": state["experts.input_linear.weight"],
                  "experts.{e}.out.weight": state["experts.output_linear.weight"],
                  "bias": state["experts.bias"]})  # fmt: skip
    turned = JetMoeRotaryEmbedding(config)(X, torch.arange(12)[None])
    future = torch.full((12, 12), float("-inf")).triu(1)[None, None]
    assert_close(ours(X), first(theirs(X, attention_mask=future, position_embeddings=turned)))


@pytest.mark.parametrize("room", [2, 64])
@torch.no_grad()
def test_switch_transformers_drops_what_comes_too_late_in_a_sequence(room: int) -> None:
    config = transformers.SwitchTransformersConfig(d_model=WIDTH, d_ff=INNER, num_experts=4, expert_capacity=room,
                                                   router_bias=True)  # fmt: skip
    from transformers.models.switch_transformers.modeling_switch_transformers import SwitchTransformersSparseMLP

    theirs = SwitchTransformersSparseMLP(config).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in theirs.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    state = theirs.state_dict()
    ours = mixture(f"{{kind: top_k, k: 1, room: {room}, bias: true}}", count=4,
                   expert=f"{{kind: mlp, hidden: {INNER}, activation: relu, dropout: 0.1}}")  # fmt: skip
    wi, wo = (torch.stack([state[f"experts.expert_{e}.{name}.weight"] for e in range(4)]) for name in ("wi", "wo"))
    take(ours, **{f"router.{part}": state[f"router.classifier.{part}"] for part in ("weight", "bias")},
         **{"experts.{e}.up.weight": wi, "experts.{e}.down.weight": wo})  # fmt: skip
    found = ours(X)
    assert_close(found, theirs(X))
    assert (found.abs().amax(-1) == 0).any() == (room == 2)


@pytest.mark.parametrize("seed", range(3))
def test_phimoe_draws_experts_in_training(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and gradients under the same noise; theirs writes the thirds of Heun's rule with four digits."""
    from transformers.models.phimoe.modeling_phimoe import sparsemixer

    rand_like = torch.rand_like

    def once(x: Tensor, **fields: Any) -> Tensor:  # theirs draws the second coin twice
        coin = rand_like(x, **fields)
        coin.uniform_ = lambda: coin  # type: ignore[method-assign]
        return coin

    model = mixture("{kind: sparse_mixer, tolerance: 0.5, balance: none}").train()
    router = model.get_submodule("m.router.choose")
    logits = torch.randn(2, 12, 8, generator=torch.Generator().manual_seed(seed))
    weight = torch.randn(24, 2, generator=torch.Generator().manual_seed(seed))
    a, b = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    torch.manual_seed(seed)
    weights, chosen, _ = router(a, None)
    monkeypatch.setattr(torch, "rand_like", once)
    torch.manual_seed(seed)
    expected, experts = sparsemixer(b.flatten(0, 1), 0.5, training=True)
    assert torch.equal(chosen, experts)
    assert not torch.equal(chosen, logits.flatten(0, 1).topk(2).indices)
    torch.testing.assert_close(weights, expected, atol=1e-4, rtol=0)
    (weights * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=0)
