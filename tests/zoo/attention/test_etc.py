"""ETC. Ainslie et al. 2020, arXiv 2004.08483."""

import time
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.errors import SpecError
from archspec.kinds.global_local_attention import GlobalLocalAttention
from archspec.spec import loads
from compiler.model import compile
from compiler.modules.global_local_attention import GlobalLocalAttend
from search.cost.price import price
from tests.models import perturbed
from tests.zoo.published import build, random, spec

pytestmark = pytest.mark.system("etc")

NAME = "attention/etc"
FEW, MANY, HEADS, WIDTH, RADIUS, REACH = 3, 13, 2, 16, 2, 3
GENERATOR = torch.Generator().manual_seed(0)
GLOBALS, LONG = (torch.randn(2, count, WIDTH, generator=GENERATOR) for count in (FEW, MANY))
PARTS = torch.tensor([[0, 1, 2], [0, 1, 1]]), torch.randint(0, 3, (2, MANY), generator=GENERATOR)


def alone(few: int = FEW, many: int = MANY, **fields: Any) -> Any:
    """The attention over the tokens of two inputs."""
    fields = {"heads": HEADS, "radius": RADIUS, "reach": REACH, "label": "part"} | fields
    node = ", ".join(f"{name}: {'null' if value is None else value}" for name, value in fields.items())
    inputs = f"{{a: {{axes: {{few: {few}}}, width: {WIDTH}}}, b: {{axes: {{token: {many}}}, width: {WIDTH}}}}}"
    text = f"""
archspec: 1
name: alone
interface: {{kind: backbone, inputs: {inputs}, labels: {{part: 3}}}}
graph: [{{from: [a, b], kind: join}}, {{name: x, kind: global_local_attention, {node}}}]
"""
    return perturbed(compile(loads(text))).eval()


def by_pairs(part: Any, x: Tensor, parts: Tensor, few: int, radius: int, blocked: tuple[str, ...]) -> Tensor:
    """All pairs of tokens, one by one."""
    q, k, v = (x @ part.qkv.weight.T + part.qkv.bias).unflatten(-1, (3, HEADS, -1)).unbind(2)
    scores = torch.full((x.shape[0], HEADS, x.shape[1], x.shape[1]), float("-inf"))
    for sample in range(x.shape[0]):
        for i in range(x.shape[1]):
            for j in range(x.shape[1]):
                piece = "gl"[i >= few] + "2" + "gl"[j >= few]
                alike = bool(parts[sample, i] == parts[sample, j])
                if (piece in blocked and not alike) or (piece == "l2l" and abs(i - j) > radius):
                    continue
                if piece in ("g2g", "l2l"):
                    vector = part.inside[int(i >= few), max(-REACH, min(REACH, j - i)) + REACH]
                else:
                    vector = part.across[int(i >= few), 0 if alike else -1]
                scores[sample, :, i, j] = (q[sample, i] * (k[sample, j] + vector)).sum(-1) / q.shape[-1] ** 0.5
    y = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v).flatten(2)
    return y @ part.out.weight.T + part.out.bias


@pytest.mark.parametrize("radius", [1, 2, 5, 40])
@pytest.mark.parametrize("blocked", [(), ("g2l",), ("g2l", "l2g", "l2l", "g2g")])
@torch.no_grad()
def test_equals_all_pairs(radius: int, blocked: tuple[str, ...]) -> None:
    model = alone(radius=radius, blocked=f"[{', '.join(blocked)}]")
    x, parts = torch.cat((GLOBALS, LONG), dim=1), torch.cat(PARTS, dim=1)
    found = model(GLOBALS, LONG, *PARTS)
    torch.testing.assert_close(found, by_pairs(model.x, x, parts, FEW, radius, blocked), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("few", "many", "radius"), [(15, 1, 1), (3, 13, 13)])
@torch.no_grad()
def test_all_global_and_a_radius_of_all_are_full_attention(few: int, many: int, radius: int) -> None:
    """Without vectors of pairs."""
    model, x = alone(few, many, radius=radius, label=None), torch.cat((GLOBALS, LONG), dim=1)
    model.x.inside.zero_()
    model.x.across.zero_()
    labels = (torch.zeros(2, few, dtype=torch.int64), torch.zeros(2, many, dtype=torch.int64))
    q, k, v = (
        part.unflatten(-1, (HEADS, -1)).transpose(1, 2)
        for part in F.linear(x, model.x.qkv.weight, model.x.qkv.bias).chunk(3, dim=-1)
    )
    y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    expected = F.linear(y, model.x.out.weight, model.x.out.bias)
    torch.testing.assert_close(model(x[:, :few], x[:, few:], *labels), expected, atol=1e-5, rtol=1e-4)


def test_cost_is_linear_in_the_long_length() -> None:
    flops = [price(spec(NAME), length=length, device="l4").forward for length in (1024, 2048, 4096, 8192)]
    assert flops[2] - flops[1] == 2 * (flops[1] - flops[0])
    assert flops[3] - flops[2] == 2 * (flops[2] - flops[1])


def test_masks_keep_paragraphs_apart() -> None:
    """Of the first layer a global token reads the words of its paragraph alone, unless the file says otherwise."""
    given = {
        "paragraphs": torch.arange(8)[None],
        "words": torch.randint(0, 256, (1, 40), generator=torch.Generator().manual_seed(0)),
        "paragraphs_part": torch.arange(8)[None],
        "words_part": torch.arange(40)[None] // 5,
        "paragraphs_valid": torch.ones(1, 8, dtype=torch.bool),
        "words_valid": torch.ones(1, 40, dtype=torch.bool),
    }
    for blocked in (["g2l"], []):
        model = random(build(NAME, blocks__attend__blocked=blocked, graph__layers__times=1))
        before = model(**given)["paragraphs"]
        for place in (0, 17, 39):
            words = given["words"].clone()
            words[0, place] = (words[0, place] + 1) % 256
            moved = ((model(**given | {"words": words})["paragraphs"] - before).abs().amax(-1) > 1e-6)[0]
            mine = torch.arange(8) == place // 5
            assert torch.equal(moved, mine if blocked else torch.ones_like(mine))


def test_faster_than_all_pairs() -> None:
    attend = GlobalLocalAttend(GlobalLocalAttention(heads=4, radius=32, reach=8), 16, 16)
    inside, across = torch.randn(2, 17, 4, 16), torch.randn(2, 1, 4, 16)

    def all_pairs(x: Tensor) -> Tensor:
        place = torch.arange(1024)
        index = (place - place[:, None]).clamp(-8, 8) + 8
        told = torch.einsum("bhqd,rhd->bhqr", x, inside[1]).gather(-1, index.expand(2, 4, -1, -1))
        seen = ((place - place[:, None]).abs() <= 32) | (place < 16) | (place < 16)[:, None]
        return ((x @ x.mT + told) / 4).masked_fill(~seen, float("-inf")).softmax(-1) @ x

    def seconds(form: Any) -> float:
        x, found = torch.randn(2, 4, 1024, 16, requires_grad=True), []
        for _ in range(3):
            start = time.perf_counter()
            form(x).sum().backward()
            found.append(time.perf_counter() - start)
        return min(found)

    assert seconds(lambda x: attend(x, x, x, inside, across, None, None)) < 0.7 * seconds(all_pairs)


@pytest.mark.parametrize(
    ("graph", "cause"),
    [
        ("[{from: [a, b], kind: join}, {kind: global_local_attention, heads: 2, radius: 2, reach: 2, label: role}]",
         "tokens carry no label 'role'"),
        ("[{from: [a, b], kind: join}, {kind: global_local_attention, heads: 2, radius: 2, reach: 2, blocked: [g2l]}]",
         "what is blocked are pairs of unlike label"),
        ("[{from: a, kind: global_local_attention, heads: 2, radius: 2, reach: 2}]", "two spans of one axis"),
        ("[{from: [b, a], kind: join}, {kind: global_local_attention, heads: 2, radius: 2, reach: 2}]",
         "known only at run time"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(graph: str, cause: str) -> None:
    inputs = "{a: {axes: {few: 3}, width: 8}, b: {axes: {token: n}, width: 8}}"
    with pytest.raises(SpecError, match=cause):
        loads(f"archspec: 1\nname: e\ninterface: {{kind: backbone, inputs: {inputs}}}\ngraph: {graph}\n")
