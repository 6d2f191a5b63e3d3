"""Mixtures of experts against `transformers`: CPU time of a step, and of one decoded token.

    python -m benchmarks.mixture

One thread, float32, width 512. `transformers` runs `MixtralSparseMoeBlock` with its grouped products (the default),
with its loop over experts (eager) and, for one token, with gathered matrices (batched).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import compiler
from archspec import spec
from benchmarks.timing import interleaved, report
from compiler.decoding import Decoding

WIDTH, TOKENS = 512, (512, 2048)
MIXTURES = {"8 experts, top 2": (8, 2, 1792), "64 experts, top 8": (64, 8, 256)}
MIXTURE = """
archspec: 1
name: mixture
interface: {{kind: backbone, inputs: {{x: {{axes: {{token: n}}, width: {width}, causal: token}}}}}}
graph:
  - name: m
    kind: mixture
    experts: {{count: {experts}, body: {{kind: glu, hidden: {hidden}}}}}
    router: {{kind: top_k, k: {k}, balance: none}}
outputs: m
"""


def ours(experts: int, k: int, hidden: int) -> Any:
    """The compiled mixture."""
    return compiler.compile(spec.loads(MIXTURE.format(width=WIDTH, experts=experts, k=k, hidden=hidden)))


def theirs(how: str, model: Any, experts: int, k: int, hidden: int) -> Any:
    """The mixture of `transformers` with the same weights."""
    from transformers import MixtralConfig
    from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

    config = MixtralConfig(
        hidden_size=WIDTH, intermediate_size=hidden, num_local_experts=experts, num_experts_per_tok=k
    )
    config._experts_implementation = how
    block = MixtralSparseMoeBlock(config)
    with torch.no_grad():
        block.gate.weight.copy_(model.get_parameter("m.router.weight"))
        block.experts.gate_up_proj.copy_(model.get_parameter("m.experts.up.weight").transpose(1, 2))
        block.experts.down_proj.copy_(model.get_parameter("m.experts.down.weight").transpose(1, 2))
    return block


def step(model: Any, x: torch.Tensor) -> Callable[[], object]:
    """Forward and backward."""

    def run() -> None:
        model(x).backward(torch.ones_like(x))
        model.zero_grad()

    return run


def token(model: Any, times: int = 20) -> Callable[[], object]:
    """Tokens one by one; ours as in decoding."""
    call = Decoding(model, length=4096) if hasattr(model, "spec") else model
    xs = torch.randn(times, 1, 1, WIDTH)

    @torch.no_grad()
    def run() -> None:
        for x in xs:
            call(x)

    return run


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for name, shape in MIXTURES.items():
        model = ours(*shape)
        blocks = {"grouped": "grouped_mm", "eager": "eager", "batched": "batched_mm"}
        others = {word: theirs(how, model, *shape) for word, how in blocks.items()}
        x = torch.randn(1, 8, WIDTH)
        for other in others.values():
            torch.testing.assert_close(other(x), model(x), atol=1e-5, rtol=0)
        variants = {"archspec": model, "grouped": others["grouped"], "eager": others["eager"]}
        for tokens in TOKENS:
            x = torch.randn(2, tokens // 2, WIDTH, requires_grad=True)
            times = interleaved({word: step(each, x) for word, each in variants.items()}, rounds=15)
            rows.append({"figure": f"CPU s a step of {tokens} tokens, {name}", **ratios(times)})
        variants["batched"] = others["batched"]
        times = interleaved({word: token(each) for word, each in variants.items()}, rounds=15)
        rows.append({"figure": f"CPU ms a token, {name}", **ratios({k: v * 1000 / 20 for k, v in times.items()})})
    report("mixture", rows, ("torch", "transformers"))


def ratios(times: dict[str, float]) -> dict[str, float]:
    """The times, and ours as a share of each of the others."""
    shares = {f"of {word}": times["archspec"] / value for word, value in times.items() if word != "archspec"}
    return {**times, **shares}


if __name__ == "__main__":
    main()
