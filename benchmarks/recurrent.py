"""Recurrent mixers in their parallel forms against `transformers` without its kernels: CPU time of a step.

    python -m benchmarks.recurrent

One thread, float32, forward and backward over sequences of 1024 with the same weights: Mamba 2 and the gated delta
rule, each as a whole mixer with its projections, and the recurrence alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import compiler
from archspec import spec
from benchmarks.timing import interleaved, report

LENGTH = 1024
SPEC = """
archspec: 1
name: mixer
interface: {{kind: backbone, inputs: {{x: {{axes: {{token: n}}, width: {width}, causal: token}}}}}}
graph:
  - {mixer}
outputs: m
"""
SIZES = (512, 1024)


def ours(width: int, mixer: str) -> nn.Module:
    """A compiled mixer alone."""
    return compiler.compile(spec.loads(SPEC.format(width=width, mixer=mixer)))


def mamba2(width: int) -> tuple[nn.Module, nn.Module]:
    """Mamba 2 with 64 features a head and a state of 128: ours and theirs."""
    from transformers import Mamba2Config
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    heads = 2 * width // 64
    config = Mamba2Config(hidden_size=width, num_heads=heads, head_dim=64, state_size=128, n_groups=1, chunk_size=256)
    mixer = f"{{name: m, kind: mamba2, heads: {heads}, head_width: 64, state: 128, groups: 1}}"
    return ours(width, mixer), Mamba2Mixer(config, layer_idx=0)


def delta(width: int) -> tuple[nn.Module, nn.Module]:
    """The gated delta rule of Qwen3-Next with heads of 128: ours and theirs."""
    from transformers import Qwen3NextConfig
    from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

    keys, values = width // 128, 2 * width // 128
    config = Qwen3NextConfig(
        hidden_size=width, linear_num_key_heads=keys, linear_num_value_heads=values, linear_key_head_dim=128,
        linear_value_head_dim=128,
    )  # fmt: skip
    mixer = f"{{name: m, kind: gated_delta_rule, key_heads: {keys}, heads: {values}, key_width: 128, value_width: 128}}"
    return ours(width, mixer), Qwen3NextGatedDeltaNet(config, layer_idx=0)


def step(model: Any, x: torch.Tensor) -> Callable[[], object]:
    """Forward and backward."""

    def run() -> None:
        out = model(x)
        (out if isinstance(out, torch.Tensor) else out[0]).square().mean().backward()
        model.zero_grad()

    return run


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for name, make in (("mamba 2", mamba2), ("gated delta rule", delta)):
        for width in SIZES:
            mine, theirs = make(width)
            count = [sum(p.numel() for p in model.parameters()) for model in (mine, theirs)]
            assert count[0] == count[1], count
            x = torch.randn(1, LENGTH, width)
            times = interleaved({"archspec": step(mine, x), "transformers": step(theirs, x)}, rounds=7)
            figure = f"CPU s, {name}, width {width}"
            rows.append({"figure": figure, **times, "ratio": times["transformers"] / times["archspec"]})
    report("recurrent", rows, ("torch", "transformers"))


if __name__ == "__main__":
    main()
