"""Routing transformer. Roy et al. 2020, arXiv 2003.05997."""

import math
import time
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.errors import SpecError
from archspec.spec import loads
from search.cost.price import price
from tests.compiler.modules.bodies import assert_close, body
from tests.zoo.published import build, parameters, random, spec

pytestmark = pytest.mark.system("routing_transformer")

NAME = "attention/routing_transformer"
NODE = "{{name: a, kind: cluster_attention, heads: 2, clusters: {}, window: {}, bias: false}}"
X = torch.randn(2, 12, 16, generator=torch.Generator().manual_seed(0))


def token_by_token(part: Any, x: Tensor, window: int, causal: bool) -> Tensor:
    """Each token finds its cluster and, by distance in it, what it reads."""
    q, v = (half.unflatten(-1, (2, -1)) for half in (x @ part.fused.weight.T).chunk(2, dim=-1))
    q = F.normalize(q, dim=-1)
    out = torch.zeros_like(v)
    for sample in range(x.shape[0]):
        for head in range(2):
            cluster = (q[sample, :, head] @ part.attend.centres[head].T).argmax(-1)
            for place, mine in enumerate(cluster.tolist()):
                members = [t for t in range(x.shape[1]) if cluster[t] == mine]
                rank = members.index(place)
                after = [] if causal else members[rank + 1 : rank + window]
                read = members[max(0, rank - window + 1) : rank] + after or [place]
                scores = q[sample, read, head] @ q[sample, place, head] * math.sqrt(q.shape[-1])
                out[sample, place, head] = scores.softmax(0) @ v[sample, read, head]
    return out.flatten(2) @ part.out.weight.T


@pytest.mark.parametrize("causal", ["token", ""])
@pytest.mark.parametrize(("clusters", "window"), [(3, 3), (2, 12), (1, 4), (5, 2)])
@torch.no_grad()
def test_equals_a_loop_over_tokens(clusters: int, window: int, causal: str) -> None:
    model = body(NODE.format(clusters, window), causal=causal)
    assert_close(model(X), token_by_token(model.a, X, window, bool(causal)))


@torch.no_grad()
def test_one_cluster_is_attention_with_shared_keys() -> None:
    model = body(NODE.format(1, 12))
    q, v = (half.unflatten(-1, (2, -1)).transpose(1, 2) for half in (X @ model.a.fused.weight.T).chunk(2, dim=-1))
    q = F.normalize(q, dim=-1)
    others = ~torch.eye(12, dtype=torch.bool)
    y = F.scaled_dot_product_attention(q, q, v, attn_mask=others, scale=math.sqrt(8))
    assert_close(model(X), y.transpose(1, 2).flatten(2) @ model.a.out.weight.T)


def test_centres_follow_in_training_without_gradient() -> None:
    model = body(NODE.format(3, 4).replace("heads: 2", "heads: 2, decay: 0.9"))
    attend = model.a.attend
    before = attend.centres.clone()
    model(X)
    assert torch.equal(attend.centres, before)
    assert not any("centres" in name for name, _ in model.named_parameters())
    model.train()(X).sum().backward()
    assert attend.centres.grad is None
    q = F.normalize((X @ model.a.fused.weight.T).chunk(2, dim=-1)[0].unflatten(-1, (2, -1)), dim=-1).detach()
    for head in range(2):
        rows = q[:, :, head].flatten(0, 1)
        cluster = (rows @ before[head].T).argmax(-1)
        for number in range(3):
            mine = rows[cluster == number]
            expected = 0.9 * before[head, number] + 0.1 * mine.mean(0) if len(mine) else before[head, number]
            torch.testing.assert_close(attend.centres[head, number], expected)


def test_centres_find_clusters() -> None:
    """Of tokens that lie in three directions, each head's centres come to lie in these."""
    torch.manual_seed(0)
    model = body(NODE.format(3, 4).replace("heads: 2", "heads: 2, decay: 0.8")).train()
    with torch.no_grad():
        model.a.fused.weight[:16] = torch.eye(16)
    directions = F.normalize(torch.randn(3, 2, 8), dim=-1)
    with torch.no_grad():
        model.a.attend.centres.copy_(F.normalize(directions.transpose(0, 1) + 0.4 * torch.randn(2, 3, 8), dim=-1))
    for _ in range(40):
        model((directions[torch.randint(0, 3, (4, 12))] + 0.05 * torch.randn(4, 12, 2, 8)).flatten(2))
    near = (F.normalize(model.a.attend.centres, dim=-1) @ directions.permute(1, 2, 0)).amax(-1)
    assert (near > 0.98).all()


@pytest.mark.parametrize("causal", [True, False])
def test_attention_costs_the_length_to_one_and_a_half(causal: bool) -> None:
    flops = []
    for side in (32, 64, 128):
        stream = f"{{axes: {{token: n}}, width: 64, limit: 65536{', causal: token' if causal else ''}}}"
        bare = "linears: {query: no_matrix, value: no_matrix, out: no_matrix}"
        node = f"{{kind: cluster_attention, heads: 4, clusters: {side}, window: {side}, bias: false, {bare}}}"
        spec = loads(
            f"archspec: 1\nname: bare\ninterface: {{kind: backbone, inputs: {{x: {stream}}}}}\ngraph: [{node}]\n"
        )
        flops.append(price(spec, length=side**2, device="l4").forward)
    for cheap, dear in zip(flops, flops[1:], strict=False):
        assert math.log(dear / cheap, 4) == pytest.approx(1.5, abs=0.02)


@torch.no_grad()
def test_no_token_is_seen_before_its_time() -> None:
    """Nor does one decide what an earlier one reads."""
    model = random(build(NAME))
    tokens = torch.randint(0, 256, (4, 64), generator=torch.Generator().manual_seed(0))
    before = model(tokens)
    for place in (1, 20, 63):
        changed = tokens.clone()
        changed[:, place:] = torch.randint(0, 256, (4, 64 - place), generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(model(changed)[:, :place], before[:, :place], atol=1e-4, rtol=1e-4)


def test_heads_are_split_by_count() -> None:
    model, more = build(NAME), build(NAME, dims__local=1, dims__routing=3)
    assert model.get_buffer("layers.0.mixer.body.branches.1.attend.centres").shape == (2, 16, 16)
    assert more.get_buffer("layers.0.mixer.body.branches.1.attend.centres").shape == (3, 16, 16)
    assert parameters(model) - parameters(more) == 3 * 16 * 64  # a routing head has no matrix of keys


def test_the_size_of_enwik8_is_that_of_its_parts() -> None:
    """None is published; the clusters' windows together are the sequence."""
    found = spec(f"{NAME}_enwik8")
    near, routed, feed = 4 * 1024 * 512, 3 * 1024 * 512, 3 * 1024 * 3072
    ends = 256 * 1024 + 1024 * 1025 + 2 * 1024 + 1025 * 256
    assert price(found, length=512, device="l4").parameters == 12 * (near + routed + feed + 4 * 1024) + ends
    assert found.graph.inputs["tokens"].most == 16 * 512


def test_faster_than_all_pairs() -> None:
    model = body(NODE.format(32, 32), "token: 1024", limit=1024, causal="token")
    x = torch.randn(2, 1024, 16)

    def all_pairs() -> Tensor:
        part = model.a
        q, v = (half.unflatten(-1, (2, -1)).transpose(1, 2) for half in (x @ part.fused.weight.T).chunk(2, dim=-1))
        q = F.normalize(q, dim=-1)
        cluster = (q @ part.attend.centres.mT).argmax(-1)
        same = (cluster[..., None] == cluster[..., None, :]) & torch.ones(1024, 1024, dtype=torch.bool).tril()
        after = same.flip(-1).cumsum(-1).flip(-1)
        bias = torch.where(same & (after <= 32), 0.0, float("-inf")) - 1e4 * torch.eye(1024)
        y = F.scaled_dot_product_attention(q, q, v, attn_mask=bias, scale=math.sqrt(8))
        return y.transpose(1, 2).flatten(2) @ part.out.weight.T

    def seconds(form: Any) -> float:
        found = []
        for _ in range(3):
            start = time.perf_counter()
            form().sum().backward()
            found.append(time.perf_counter() - start)
        return min(found)

    torch.testing.assert_close(model(x), all_pairs(), atol=1e-4, rtol=1e-4)
    assert seconds(lambda: model(x)) < 0.7 * seconds(all_pairs)


def test_heads_divide_the_width() -> None:
    with pytest.raises(SpecError, match="width 16 does not divide into 3 heads"):
        body(NODE.format(3, 4).replace("heads: 2", "heads: 3"))
