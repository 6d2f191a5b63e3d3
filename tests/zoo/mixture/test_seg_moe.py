"""Seg-MoE. Ortigossa and Segal 2026, arXiv 2601.21641."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.errors import SpecError
from archspec.spec import loads
from compiler.modules.grouped import GroupedLinear
from compiler.modules.router import Choose
from tests.zoo.published import ZOO, build, parameters, random, spec

pytestmark = pytest.mark.system("seg_moe")
NAME = "mixture/seg_moe"
SERIES = torch.randn(3, 96, 1, generator=torch.Generator().manual_seed(0))
SEGMENTS, WIDTH, TOKENS, EXPERTS = (3, 2, 1), 32, 12, 8


def without_attention() -> Any:
    """The model with attention that gives zeros, so that only segments mix tokens."""
    model = random(build(NAME))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".mixer.body.out." in name:
                parameter.zero_()
    return model


def layers(model: Any) -> list[tuple[Tensor, Tensor]]:
    """What each layer reads and gives."""
    seen: list[tuple[Tensor, Tensor]] = []
    hooks = [
        model.get_submodule(f"layers.{number}").register_forward_hook(
            lambda _, given, out: seen.append((given[0], out))
        )
        for number in range(3)
    ]
    with torch.no_grad():
        model(SERIES)
    for hook in hooks:
        hook.remove()
    return seen


def naive(x: Tensor, state: dict[str, Tensor], size: int) -> Tensor:
    """A segment at a time: ``x + mixture(norm(x))`` of tokens ``[tokens, width]``."""
    state = {name.removeprefix("body.body.mixture."): value for name, value in state.items()}
    out = x.clone()
    for start in range(0, len(x), size):
        segment = F.rms_norm(x[start : start + size], (WIDTH,), state["norm.weight"], 1e-6).flatten()
        scores = (state["router.weight"] @ segment).softmax(-1)
        best = scores.argsort(descending=True)[:2]
        found = glu(segment, state["shared.gate_up.weight"], state["shared.down.weight"])
        found = found * (state["shared_gate.weight"] @ segment).sigmoid()
        for expert in best:
            up, down = (state[f"experts.{name}.weight"][expert].T for name in ("up", "down"))
            found = found + scores[expert] / scores[best].sum() * glu(segment, up, down)
        out[start : start + size] += found.unflatten(0, (size, WIDTH))
    return out


def glu(x: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    gate, up = (gate_up @ x).chunk(2)
    return down @ (F.silu(gate) * up)


def test_a_segment_is_one_token_of_the_router_and_its_experts() -> None:
    model = without_attention()
    state = model.state_dict()
    for number, ((given, found), size) in enumerate(zip(layers(model), SEGMENTS, strict=True)):
        prefix = f"layers.{number}.channel."
        weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        expected = torch.stack([naive(x, weights, size) for x in given])
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_experts_read_whole_segments_and_all_tokens_of_one_have_the_same() -> None:
    model = build(NAME)
    read: list[tuple[int, int]] = []
    routed: list[int] = []
    for part in model.modules():
        if isinstance(part, GroupedLinear) and "up" in part.roles:
            part.register_forward_hook(lambda part, given, out: read.append(tuple(given[0].shape)))
        if isinstance(part, Choose):
            part.register_forward_hook(lambda part, given, out: routed.append(out[1].shape[0]))
    model(SERIES)
    assert routed == [3 * TOKENS // size for size in SEGMENTS]  # one choice for each segment
    assert read == [(2 * 3 * TOKENS // size, size * WIDTH) for size in SEGMENTS]


@pytest.mark.parametrize("token", [0, 5, 11])
def test_a_token_is_felt_in_its_segment_and_nowhere_else(token: int) -> None:
    model = without_attention()
    for number, ((given, _), size) in enumerate(zip(layers(model), SEGMENTS, strict=True)):
        layer = model.get_submodule(f"layers.{number}")
        changed = given.clone()
        changed[:, token] += 1
        with torch.no_grad():
            felt = (layer(changed) - layer(given)).abs().amax((0, 2)) > 1e-6
        first = token // size * size
        assert felt.nonzero()[:, 0].tolist() == list(range(first, first + size))


@torch.no_grad()
def test_segments_of_one_token_are_an_ordinary_mixture() -> None:
    alone = random(build(NAME, graph__layers__rounds=["layer"] * 3))
    mixture = {
        "kind": "mixture",
        "experts": {"count": EXPERTS, "body": {"kind": "glu", "hidden": WIDTH}},
        "shared": {"kind": "glu", "hidden": WIDTH},
        "shared_gate": True,
        "router": {"kind": "top_k", "k": 2},
    }
    plain = build(NAME, graph__layers__rounds=["layer"] * 3, blocks__layer__channel=mixture)
    plain.load_state_dict({name.replace(".body.mixture.", "."): value for name, value in alone.state_dict().items()})
    assert torch.equal(alone(SERIES), plain(SERIES))


def test_the_shared_expert_adds_its_weights_and_gate() -> None:
    model, bare = (
        build(NAME, device="meta", blocks__by_segment__body=body)
        for body in (BODY, [BODY[0], {**BODY[1], "shared": None, "shared_gate": False}, BODY[2]])
    )
    assert parameters(model) - parameters(bare) == sum(3 * (s * WIDTH) ** 2 + s * WIDTH for s in SEGMENTS)


BODY: list[Any] = [
    {"kind": "patch_merging", "factor": "segment", "width": "segment * width_in", "norm": "absent",
     "linear": "no_matrix"},
    {"kind": "mixture", "experts": {"count": 8, "body": {"kind": "glu", "hidden": "width_in"}},
     "shared": {"kind": "glu", "hidden": "width_in"}, "shared_gate": True, "router": {"kind": "top_k", "k": 2}},
    {"kind": "patch_expanding", "factor": "segment", "width": "width_in / segment", "linear": "no_matrix"},
]  # fmt: skip


def test_segments_that_do_not_divide_are_refused() -> None:
    with pytest.raises(SpecError, match="time=12.* does not divide by 5\n.*1, 2, 3, 4, 6 or 12"):
        spec(NAME, graph__layers__rounds=[{"kind": "layer", "segment": 5}])


def test_segments_along_a_causal_axis_are_refused() -> None:
    text = (ZOO / f"{NAME}.yaml").read_text().replace("width: 1}}}", "width: 1, causal: time}}}")
    text = text.replace("{kind: patch_embedding, size: 8, width: width}", "{kind: project, width: width}")
    with pytest.raises(SpecError, match="cannot be added to"):
        loads(text)
