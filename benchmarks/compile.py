"""From text to a traced model on the meta device, against `transformers` building its own meta model from a config.

python -m benchmarks.compile
"""

from __future__ import annotations

import torch

import compiler
from archspec import spec
from benchmarks.timing import interleaved, report

DECODER = """
archspec: 1
name: decoder
interface: {{kind: causal_lm, vocab: 32000, length: 2048}}
dims: {{width: 768}}
blocks:
  layer:
    kind: transformer_layer
    norm: rms_norm
    mixer: {{kind: attention, heads: 12, kv_heads: 4, position: rope}}
    channel: {{kind: glu, hidden: 2048}}
graph:
  - {{kind: token_embedding, width: width}}
  - {{name: layers, kind: repeat, times: {layers}, body: layer}}
  - rms_norm
  - lm_head
"""


def ours(layers: int) -> torch.nn.Module:
    """The decoder of so many layers, from its text."""
    return compiler.compile(spec.loads(DECODER.format(layers=layers)), device="meta")


def theirs(layers: int) -> torch.nn.Module:
    """The same model of `transformers`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32000, hidden_size=768, intermediate_size=2048, num_hidden_layers=layers, num_attention_heads=12,
        num_key_value_heads=4, max_position_embeddings=2048, attn_implementation="sdpa", tie_word_embeddings=False,
    )  # fmt: skip
    with torch.device("meta"):
        return LlamaForCausalLM(config)


def main() -> None:
    torch.set_num_threads(1)
    sizes = {layers: sum(p.numel() for p in ours(layers).parameters()) for layers in (12, 96)}
    assert sizes == {n: sum(p.numel() for p in theirs(n).parameters()) for n in sizes}
    variants = {
        f"{who} {n}": (lambda make=make, n=n: make(n))
        for n in sizes
        for who, make in (("ours", ours), ("theirs", theirs))
    }
    times = interleaved(variants, rounds=31, warm=3)
    rows = []
    for n, parameters in sizes.items():
        a, b = times[f"ours {n}"] * 1e3, times[f"theirs {n}"] * 1e3
        rows.append(
            {"layers": n, "parameters": parameters, "archspec CPU ms": a, "transformers CPU ms": b, "ratio": a / b}
        )
    added = (times["ours 96"] - times["ours 12"]) * 1e3 / 84
    rows.append({"layers": "each added", "archspec CPU ms": added})
    report("compile", rows, ("torch", "transformers"))


if __name__ == "__main__":
    main()
