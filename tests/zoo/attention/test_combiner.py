"""Combiner. Ren et al. 2021, arXiv 2107.05768."""

import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from archspec.errors import SpecError
from archspec.kinds.combiner import Combiner
from archspec.spec import loads
from compiler.model import compile
from compiler.modules.combiner import CombinerAttend
from search.cost.price import price
from spaces import space
from tests.compiler.modules.bodies import assert_close, body, by_pairs
from tests.zoo.published import build, parameters, random

pytestmark = pytest.mark.system("combiner")

NAME = "attention/combiner"
PATTERNS = ("fixed", "axial", "logsparse")
NODE = "{{name: a, kind: combiner, heads: 2, segment: {}, pattern: {}, bias: false}}"
X = torch.randn(2, 12, 16, generator=torch.Generator().manual_seed(0))
every = pytest.mark.parametrize("pattern", PATTERNS)
both = pytest.mark.parametrize("causal", [True, False])


def by_definition(q: Tensor, k: Tensor, size: int, pattern: str, causal: bool) -> Tensor:
    """The weights of all tokens, ``[tokens, tokens]``, set by set."""
    tokens = q.shape[0]
    out = torch.zeros(tokens, tokens)
    for t in range(tokens):
        mine = range(t - t % size, min(t - t % size + size, tokens))
        near = [s for s in mine if s <= t or not causal]
        far = [s for s in sets(t, size, pattern, tokens) if s[0] < t or not causal]
        asks, keys = [], []
        for members in far:
            if pattern == "axial":
                place = members[0] + t % size
                whole = place < tokens  # of a segment that the sequence cuts short, some places are empty
                asks.append(q[place] if whole else torch.zeros_like(q[0]))
                keys.append(k[place] if whole else torch.zeros_like(q[0]))
            else:
                asks.append(q[members].amax(0))
                keys.append(k[members].amax(0))
        scores = torch.stack([k[s] for s in near] + keys) @ q[t] / q.shape[1] ** 0.5
        weights = scores.softmax(0)
        out[t, near] = weights[: len(near)]
        for weight, members, ask in zip(weights[len(near) :], far, asks, strict=True):
            out[t, members] += weight * (k[members] @ ask / q.shape[1] ** 0.5).softmax(0)
    return out


def sets(t: int, size: int, pattern: str, tokens: int) -> list[list[int]]:
    """The segments beside a token's own; logsparse: the other half of each run of 2, 4, … segments that has its own."""
    if pattern != "logsparse":
        starts = [start for start in range(0, tokens, size) if start != t - t % size]
        return [list(range(start, min(start + size, tokens))) for start in starts]
    found, run = [], size
    while run < tokens:
        other = (t // run ^ 1) * run
        found.append(list(range(other, min(other + run, tokens))))
        run *= 2
    return [one for one in found if one]


@torch.no_grad()
def test_logsparse_cuts_what_is_before_by_the_binary_digits_of_the_place() -> None:
    """Section 4.2, of places from 1: what is read directly, and spans between suffix sums of the digits of i - 1."""
    q, k = torch.randn(2, 23, 8, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(23, 23)
    for i in range(1, 24):
        suffixes = [(i - 1) >> t << t for t in range(6)]  # the sum of the digits from t on
        spans = [range(low, high) for high, low in zip(suffixes, suffixes[1:], strict=False) if high > low]
        direct = [i - 1, *(span[0] for span in spans if len(span) == 1)]
        far = [list(span) for span in spans if len(span) > 1]
        keys = [k[direct], *(k[span].amax(0, keepdim=True) for span in far)]
        weights = (torch.cat(keys) @ q[i - 1] / 8**0.5).softmax(0)
        expected[i - 1, direct] = weights[: len(direct)]
        for weight, span in zip(weights[len(direct) :], far, strict=True):
            expected[i - 1, span] = weight * (k[span] @ q[span].amax(0) / 8**0.5).softmax(0)
    for size in (1, 2):
        attend = CombinerAttend(Combiner(heads=1, segment=size, pattern="logsparse"), 8, causal=True)
        torch.testing.assert_close(weights_of(attend, q, k), expected, atol=1e-5, rtol=1e-4)


def weights_of(attend: Any, q: Tensor, k: Tensor) -> Tensor:
    """``[tokens, tokens]``: what is read of values that are one for a single token."""
    values = torch.eye(q.shape[0])[None, None]
    return attend(q[None, None], k[None, None], values, None)[0]


@both
@every
@pytest.mark.parametrize(("tokens", "size"), [(16, 4), (13, 3), (7, 2), (5, 8), (12, 1)])
@torch.no_grad()
def test_weights_are_those_of_the_definition(tokens: int, size: int, pattern: str, causal: bool) -> None:
    """They sum to one, and none of a token that may be read is zero."""
    q, k = torch.randn(2, tokens, 8, generator=torch.Generator().manual_seed(0))
    attend = CombinerAttend(Combiner(heads=1, segment=size, pattern=pattern), 8, causal=causal)
    found = weights_of(attend, q, k)
    torch.testing.assert_close(found, by_definition(q, k, size, pattern, causal), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.sum(1), torch.ones(tokens))
    allowed = torch.ones(tokens, tokens, dtype=torch.bool)
    assert torch.equal(found > 0, allowed.tril() if causal else allowed)


@both
@pytest.mark.parametrize(("pattern", "size"), [*((pattern, 12) for pattern in PATTERNS), ("fixed", 1), ("axial", 1)])
@torch.no_grad()
def test_one_segment_and_segments_of_one_token_are_full_attention(pattern: str, size: int, causal: bool) -> None:
    model = body(NODE.format(size, pattern), causal="token" if causal else "")
    allowed = torch.ones(12, 12, dtype=torch.bool).tril() if causal else None
    assert_close(model(X), by_pairs(model.a.state_dict(), X, 2, allowed=allowed))


@every
@torch.no_grad()
def test_no_token_is_seen_before_its_time(pattern: str) -> None:
    model = random(build(NAME, blocks__attend__pattern=pattern))
    tokens = torch.randint(0, 256, (2, 50), generator=torch.Generator().manual_seed(0))
    before = model(tokens)
    for place in (1, 15, 16, 33, 49):
        changed = tokens.clone()
        changed[:, place] = (changed[:, place] + 1) % 256
        after = model(changed)
        torch.testing.assert_close(after[:, :place], before[:, :place], atol=1e-4, rtol=1e-4)
        assert ((after[:, place:] - before[:, place:]).abs().amax((0, 2)) > 0).all()


def operations(pattern: str, length: int, segment: int, causal: bool) -> int:
    """Of the attention alone."""
    stream = f"{{axes: {{token: n}}, width: 64, limit: 65536{', causal: token' if causal else ''}}}"
    bare = "linears: {query: no_matrix, key: no_matrix, value: no_matrix, out: no_matrix}"
    node = f"{{kind: combiner, heads: 4, segment: {segment}, pattern: {pattern}, bias: false, {bare}}}"
    text = f"archspec: 1\nname: bare\ninterface: {{kind: backbone, inputs: {{x: {stream}}}}}\ngraph: [{node}]\n"
    return price(loads(text), length=length, device="l4").forward


@both
@pytest.mark.parametrize("pattern", ["fixed", "axial"])
def test_costs_the_length_to_one_and_a_half(pattern: str, causal: bool) -> None:
    flops = [operations(pattern, side**2, side, causal) for side in (32, 64, 128)]
    for cheap, dear in zip(flops, flops[1:], strict=False):
        assert math.log(dear / cheap, 4) == pytest.approx(1.5, abs=0.02)


@both
def test_logsparse_costs_the_length_times_its_logarithm(causal: bool) -> None:
    """Each doubling of the length adds the same for each token."""
    lengths = [1024, 2048, 4096, 8192, 16384]
    each = [operations("logsparse", length, 16, causal) / length for length in lengths]
    steps = [after - before for before, after in zip(each, each[1:], strict=False)]
    assert steps[0] > 0
    assert steps == pytest.approx([steps[0]] * 4, rel=0.1)


def test_the_pattern_can_be_searched(tmp_path: Path) -> None:
    pattern = "{kind: combiner, heads: 2, segment: 4, pattern: {choose: [fixed, axial, logsparse]}}"
    interface = "interface: {kind: backbone, inputs: {x: {axes: {token: 12}, width: 16}}}"
    (tmp_path / "patterns.yaml").write_text(f"archspace: 1\nname: patterns\n{interface}\ngraph: [{pattern}]\n")
    members = [candidate.spec for candidate in space.load(tmp_path / "patterns.yaml").members()]
    assert len({member.structure for member in members}) == 3
    assert len({parameters(compile(member)) for member in members}) == 1


def test_faster_than_all_pairs() -> None:
    def seconds(form: Any) -> float:
        x, found = torch.randn(2, 4, 1024, 16, requires_grad=True), []
        for _ in range(3):
            start = time.perf_counter()
            form(x).sum().backward()
            found.append(time.perf_counter() - start)
        return min(found)

    def all_pairs(x: Tensor) -> Tensor:
        allowed = torch.ones(1024, 1024, dtype=torch.bool).tril()
        return (x @ x.mT).masked_fill(~allowed, float("-inf")).softmax(-1) @ x

    for pattern in PATTERNS:
        attend = CombinerAttend(Combiner(heads=4, segment=32, pattern=pattern), 16, causal=True)
        assert seconds(lambda x, attend=attend: attend(x, x, x, None)) < seconds(all_pairs)


def test_heads_divide_the_width() -> None:
    with pytest.raises(SpecError, match="width 16 does not divide into 3 heads"):
        body(NODE.format(4, "fixed").replace("heads: 2", "heads: 3"))
