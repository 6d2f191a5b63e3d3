"""CoCA. Zhu et al. 2023, arXiv 2309.08646."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.errors import SpecError
from archspec.spec import loads
from compiler.model import compile
from tests.compiler.modules.bodies import body
from tests.models import perturbed
from tests.zoo.published import build, random

pytestmark = pytest.mark.system("coca")

HEADS, WIDTH = 4, 8
SCORES = """
archspec: 1
name: scores
interface: {kind: backbone, inputs: {x: {axes: {token: n}, width: 16, causal: token, limit: 64}}}
graph: [{name: a, kind: attention, heads: 1, head_width: 8, SCORE position: rope}]
outputs: {a: a, scores: a.scores}
"""


def turned(x: Tensor, place: int) -> Tensor:
    """Complex features ``[…, width / 2]`` at a place, by the definition of rotary positions."""
    rates = 10000.0 ** (-torch.arange(0, WIDTH, 2).double() / WIDTH)
    return x * torch.polar(torch.ones_like(rates), place * rates)


def three_indices(x: Tensor, state: dict[str, Tensor], layout: str, causal: bool) -> Tensor:
    """A layer with a key of its own for each pair of a query m and a token n: ``turn_n(q_m * t_n)``."""

    def pairs(y: Tensor) -> tuple[Tensor, Tensor]:
        return y.chunk(2, -1) if layout == "halves" else (y[..., ::2], y[..., 1::2])  # type: ignore[return-value]

    q, k, v = (part.unflatten(-1, (-1, WIDTH)) for part in (x @ state["qkv.weight"].T).split((32, 16, 16), -1))
    query, line = torch.complex(*pairs(q)), F.relu(sum(pairs(k)) / 2).repeat_interleave(2, 2)  # type: ignore[arg-type]
    v, tokens = v.repeat_interleave(2, 2), x.shape[1]
    out = torch.zeros(x.shape[0], tokens, HEADS, WIDTH, dtype=x.dtype)
    for m in range(tokens):
        seen = range(m + 1 if causal else tokens)
        keys = torch.stack([turned(query[:, m] * line[:, n], n) for n in seen], 2)
        scores = (turned(query[:, m], m)[:, :, None] * keys.conj()).real.sum(-1) / WIDTH**0.5
        out[:, m] = torch.einsum("bhn,bnhd->bhd", scores.softmax(-1), v[:, : len(seen)])
    return out.flatten(2) @ state["out.weight"].T


@pytest.mark.parametrize("layout", ["halves", "pairs"])
@pytest.mark.parametrize("causal", ["token", ""])
@torch.no_grad()
def test_equals_keys_of_three_indices(layout: str, causal: str) -> None:
    node = "{kind: attention, heads: 4, kv_heads: 2, head_width: 8, score: collinear, "
    model = body(node + f"position: {{kind: rope, layout: {layout}}}}}", causal=causal).double()
    model.attention.position.fill()
    x = torch.randn(2, 12, 16, generator=torch.Generator().manual_seed(0)).double()
    state = {name.removeprefix("attention."): value for name, value in model.state_dict().items()}
    torch.testing.assert_close(model(x), three_indices(x, state, layout, bool(causal)), atol=1e-5, rtol=0)


@torch.no_grad()
def test_no_score_is_above_that_of_distance_zero() -> None:
    """A token that says the same at every distance is heard best nearby: no angle between query and key delays it."""
    best = {}
    for score in ("score: collinear,", ""):
        model = perturbed(compile(loads(SCORES.replace("SCORE", score)))).eval()
        x = torch.randn(1, 1, 16, generator=torch.Generator().manual_seed(3)).expand(1, 64, 16)
        best[score] = int(model(x)["scores"].unflatten(1, (64, 64))[0, -1, :, 0].argmax())
    assert best["score: collinear,"] == 63 != best[""]


def sequences(count: int, length: int, seed: int) -> Tensor:
    """Words of four letters out of eight words, again and again."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(0, 32, (8, 4), generator=torch.Generator().manual_seed(1))
    return words[torch.randint(0, 8, (count, length // 4), generator=generator)].flatten(1)


def test_perplexity_at_up_to_24_times_the_length_of_training() -> None:
    model = random(build("attention/coca")).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(60):
        tokens = sequences(16, 32, step)
        loss = F.cross_entropy(model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    found = {}
    with torch.no_grad():
        for times in (1, 2, 8, 24):
            tokens = sequences(4, 32 * times, 1000)
            logits = model.eval()(tokens)[:, :-1].flatten(0, 1)
            found[times] = math.exp(F.cross_entropy(logits, tokens[:, 1:].flatten()))
    assert found[1] < 5  # words are guessed from their first letters; 32 is chance
    assert all(math.isfinite(value) and value < 32 for value in found.values())


def test_an_odd_head_has_no_pairs() -> None:
    with pytest.raises(SpecError, match="5 features of a head are no pairs"):
        body("{kind: attention, heads: 2, head_width: 5, score: collinear}")
