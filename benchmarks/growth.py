"""How time and memory of mixers grow with the length: those whose cost is linear, and convolutions by spectra.

    python -m benchmarks.growth

One thread, float32, forward and backward of one mixer with its projections, eight sequences of width 256, lengths in
turn. Growth is what 8,192 tokens cost over eight times what 1,024 cost: 1 is linear. Time is CPU time, the median of
rounds; memory is the peak above weights and inputs by torch's `MemTracker`. Eight sequences, so that no length fits the
caches, and an allocator that keeps what it has, so that none is served new pages by the system.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributed._tools.mem_tracker import MemTracker

import compiler
from archspec import spec
from benchmarks.timing import interleaved, report

WIDTH, BATCH, LENGTHS, ROUNDS = 256, 8, (1024, 2048, 4096, 8192), 3
KEEPING = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**34)}  # of glibc, read as it starts
MIXERS = {
    "linear attention": "kind: linear_attention, heads: 4",
    "hedgehog": "kind: linear_attention, heads: 4, features: {kind: hedgehog, over: features}",
    "gaussian mixture": "kind: linear_attention, heads: 4, features: {kind: gaussian_mixture_features, count: 32}",
    "gated linear attention": "kind: gated_linear_attention, heads: 4, linears: {decay: {kind: low_rank, rank: 16}}",
    "gated delta rule": "kind: gated_delta_rule, heads: 4",
    "neural memory (OmegaNet)": "kind: neural_memory, heads: 4, hidden: 64, window: 4, chunk: 64, momentum: true",
    "mamba": "kind: mamba, state: 16",
    "mamba 2": "kind: mamba2, state: 32, head_width: 64",
    "rg_lru": "kind: rg_lru",
    "quasi-recurrent": "kind: quasi_recurrent",
    "rwkv": "kind: rwkv_time_mixing",
    "running mean": "kind: running_mean",
    "depthwise convolution": "kind: depthwise_convolution, size: 4",
    "dynamic convolution": "kind: dynamic_convolution, heads: 4, size: 4",
    "window of 128": "kind: attention, heads: 4, window: 128, position: rope",
    "cluster attention": "kind: cluster_attention, heads: 4, clusters: 16, window: 128",
    "nystrom attention": "kind: nystrom_attention, heads: 4, landmarks: 64",
    "long convolution, n log n": "kind: long_convolution",
    "S4, n log n": "kind: long_convolution, filter: {kind: diagonal_state_space, state: 16}",
    "Orchid's convolution, n log n": "kind: circular_convolution, condition: spectral_magnitude",
}
BOTH_WAYS = {"nystrom attention", "Orchid's convolution, n log n"}
SPEC = """
archspec: 1
name: mixer
interface: {{kind: backbone, inputs: {{x: {{axes: {{token: n}}, width: {width}, limit: {limit}{causal}}}}}}}
graph: [{{name: m, {mixer}}}]
"""


def build(name: str) -> Any:
    """A mixer alone."""
    causal = "" if name in BOTH_WAYS else ", causal: token"
    text = SPEC.format(width=WIDTH, limit=max(LENGTHS), causal=causal, mixer=MIXERS[name])
    return compiler.compile(spec.loads(text))


def step(model: Any, x: Tensor) -> Callable[[], None]:
    """Forward and backward."""

    def run() -> None:
        model(x).square().mean().backward()
        model.zero_grad()
        x.grad = None

    return run


def peak(model: Any, x: Tensor) -> int:
    """Bytes that a step needs above what is there."""
    tracker = MemTracker()
    tracker.track_external(model, x)
    with tracker:
        before = tracker.get_tracker_snapshot("current")
        step(model, x)()
    cpu = torch.device("cpu")
    return int(tracker.get_tracker_snapshot("peak")[cpu]["Total"] - before[cpu]["Total"])


def main() -> None:
    if not KEEPING.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.growth"], {**os.environ, **KEEPING})
    torch.set_num_threads(1)
    rows = []
    for name in MIXERS:
        model = build(name)
        given = {length: torch.randn(BATCH, length, WIDTH, requires_grad=True) for length in LENGTHS}
        times = interleaved({str(length): step(model, x) for length, x in given.items()}, rounds=ROUNDS)
        bytes_ = [peak(model, given[length]) for length in (LENGTHS[0], LENGTHS[-1])]
        ratio = LENGTHS[-1] / LENGTHS[0]
        rows.append({
            "mixer": name, **{f"CPU s, {length}": value for length, value in times.items()},
            "growth of time": times[str(LENGTHS[-1])] / times[str(LENGTHS[0])] / ratio,
            "MiB, 8192": bytes_[1] / 2**20, "growth of memory": bytes_[1] / bytes_[0] / ratio,
        })  # fmt: skip
    report("growth", rows)


if __name__ == "__main__":
    main()
