"""TEGA. Zheng et al. 2025, arXiv 2501.00759."""

from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from archspec.errors import SpecError
from archspec.spec import Spec
from compiler.model import compile
from search.cost.price import price
from spaces.space import load as load_space
from tests.models import perturbed
from tests.zoo.published import ZOO, spec

pytestmark = pytest.mark.system("tega")
NAME = "structured/tega"
TOKENS = torch.arange(24).reshape(2, 12) * 5 % 128
RELATIONS = torch.arange(288).reshape(2, 12, 12) * 7 % 12


def vanilla() -> Spec:
    """The encoder without guidance."""
    plain = {"kind": "attention", "heads": "heads", "position": "place", "bias": True}
    return spec(NAME, blocks__attend=plain)


@torch.no_grad()
def test_no_bias_is_the_plain_encoder() -> None:
    model, plain = perturbed(compile(spec(NAME))).eval(), compile(vanilla()).eval()
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("guidance")}
    missing, unexpected = plain.load_state_dict(state, strict=False)
    assert (missing, unexpected) == (["guidance.weight"], [])
    assert not torch.allclose(model(TOKENS, RELATIONS), plain(TOKENS, RELATIONS), atol=1e-3)
    model.guidance.weight.zero_()
    torch.testing.assert_close(model(TOKENS, RELATIONS), plain(TOKENS, RELATIONS), atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_each_pair_gets_the_number_of_its_head_and_relation() -> None:
    """One layer's attention, by hand."""
    found = spec(
        NAME, graph__layers__times=1, graph__layers__body="attend", outputs={"read": "layers", "x": "embedded"}
    )
    model: Any = perturbed(compile(found)).eval()
    out = model(TOKENS, RELATIONS)
    state = {name.removeprefix("layers.0."): value for name, value in model.state_dict().items()}
    qkv = next(value for name, value in state.items() if name.endswith("qkv.weight"))
    bias = next(value for name, value in state.items() if name.endswith("qkv.bias"))
    table = next(value for name, value in state.items() if name.endswith("position.weight"))
    leaf = {end: next(v for n, v in state.items() if n.endswith(f"out.{end}")) for end in ("weight", "bias")}
    q, k, v = (part.unflatten(-1, (4, 16)).transpose(1, 2) for part in (out["x"] @ qkv.T + bias).chunk(3, dim=-1))
    scores = q @ k.mT / 4
    for i in range(12):
        for j in range(12):
            distance = abs(j - i)  # of 16 buckets each way has 8; distances below 4 have one each
            if distance < 4:
                scores[:, :, i, j] += table[distance + 8 * (j > i)] + state["guidance.weight"][RELATIONS[:, i, j]]
            else:
                scores[:, :, i, j] += state["guidance.weight"][RELATIONS[:, i, j]]
                bucket = min(7, 4 + int(torch.tensor(distance / 4).log() / torch.tensor(8.0).log() * 4))
                scores[:, :, i, j] += table[bucket + 8 * (j > i)]
    expected = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2) @ leaf["weight"].T + leaf["bias"]
    torch.testing.assert_close(out["read"], expected, atol=1e-5, rtol=1e-5)


def test_guidance_costs_a_table() -> None:
    assert price(spec(NAME)).parameters - price(spec(NAME, interface__inputs__relations__vocab=2)).parameters == 10 * 4
    assert price(spec(NAME)).forward == price(vanilla()).forward


def test_positions_are_a_choice_of_a_space(tmp_path: Path) -> None:
    file = tmp_path / "positions.yaml"
    file.write_text(
        f"archspace: 1\nextends: {ZOO / NAME}.yaml\n"
        "blocks:\n"
        "  place: {choose: [none, rope, alibi, {kind: bucketed_bias, buckets: {choose: [8, 16]}, reach: 32}]}\n"
        "  absolute: {choose: [identity, learned_position, sinusoidal_position]}\n"
        "graph:\n"
        "  - {name: guidance, from: relations, kind: token_embedding, width: heads}\n"
        "  - {name: embedded, from: tokens, kind: token_embedding, width: width}\n"
        "  - {name: placed, kind: absolute}\n"
        "  - {name: layers, kind: repeat, times: 3, body: layer}\n"
        "  - layer_norm\n  - {kind: pool, take: last}\n  - {name: answer, kind: classifier}\n"
    )
    space = load_space(file)
    assert space.cardinality() == (15, 15)
    shapes = {tuple(compile(m.spec)(TOKENS, RELATIONS).shape) for m in space.members()}
    assert shapes == {(2, 100)}
    assert space.sample(Random(0)).spec.structure != spec(NAME).structure


def test_pairs_of_other_tokens_are_refused() -> None:
    with pytest.raises(SpecError, match=r"guidance is relations.*the scores are pairs"):
        spec(NAME, interface__inputs__relations__axes={"from": "length", "to": 3})
