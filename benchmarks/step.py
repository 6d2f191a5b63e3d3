"""Forward and backward of a 125M decoder with its loss, against `transformers`: CPU time, and memory above the weights.

    python -m benchmarks.step

One thread, float32, sequences of 256. Memory is the peak of the resident set during a step above what it was before
it, each measurement in a process of its own.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import torch

import compiler
from archspec import spec
from benchmarks.compile import DECODER
from benchmarks.timing import interleaved, report

LAYERS, LENGTH = 12, 256


def ours() -> Callable[[torch.Tensor], object]:
    """A step of the compiled decoder."""
    model = compiler.with_loss(compiler.compile(spec.loads(DECODER.format(layers=LAYERS))))

    def step(tokens: torch.Tensor) -> None:
        targets = torch.nn.functional.pad(tokens[:, 1:], (0, 1), value=-100)
        model(tokens, targets).backward()
        model.zero_grad()

    return step


def theirs() -> Callable[[torch.Tensor], object]:
    """A step of the same model of `transformers`, with sdpa."""
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32000,
            hidden_size=768,
            intermediate_size=2048,
            num_hidden_layers=LAYERS,
            num_attention_heads=12,
            num_key_value_heads=4,
            max_position_embeddings=2048,
            attn_implementation="sdpa",
            use_cache=False,
            tie_word_embeddings=False,
        )  # fmt: skip
    )

    def step(tokens: torch.Tensor) -> None:
        model(input_ids=tokens, labels=tokens).loss.backward()
        model.zero_grad()

    return step


def memory(who: str, batch: int) -> int:
    """Bytes that a step needs above the weights; the median of three processes."""
    code = f"from benchmarks import step; step.peak({who!r}, {batch})"
    # freed tensors go back to the system at once, so that the resident set is what is in use
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", code]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True, env=environment) for _ in range(3)]
    return int(statistics.median(int(json.loads(run.stdout.splitlines()[-1])) for run in runs))


def peak(who: str, batch: int) -> None:
    """Prints what `memory` reads."""
    torch.set_num_threads(1)
    step = {"ours": ours, "theirs": theirs}[who]()
    tokens = torch.randint(0, 32000, (batch, LENGTH))
    step(tokens[:1, :8])  # libraries allocate their own buffers once
    before = _status("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts again from here
    step(tokens)
    print(json.dumps(_status("VmHWM") - before))


def _status(field: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))


def main() -> None:
    torch.set_num_threads(1)
    tokens = torch.randint(0, 32000, (2, LENGTH))
    variants = {"archspec": partial(ours(), tokens), "transformers": partial(theirs(), tokens)}
    times = interleaved(variants, rounds=7)
    rows = [{"figure": "CPU s, batch 2", **times, "ratio": times["archspec"] / times["transformers"]}]
    variants.clear()
    for batch in (2, 8):
        needs = {name: memory(who, batch) / 2**20 for name, who in (("archspec", "ours"), ("transformers", "theirs"))}
        rows.append(
            {
                "figure": f"MiB above the weights, batch {batch}",
                **needs,
                "ratio": needs["archspec"] / needs["transformers"],
            }
        )
    report("step", rows, ("torch", "transformers"))


if __name__ == "__main__":
    main()
