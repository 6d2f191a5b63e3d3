"""Peak memory of a training step of 20 models: priced, by torch's `MemTracker`, and as the resident set has it.

    python -m benchmarks.memory

One thread, float32; a step is forward, the loss of the interface, backward and AdamW, as in `search.train`. Compared is
what a step needs above weights, optimizer states, inputs and targets, which are there before it: the resident set's
peak above its size, each model in a process of its own that has taken a step. `MemTracker` watches the same step.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed._tools.mem_tracker import MemTracker

import compiler
from archspec.spec import Spec, load
from benchmarks.timing import report
from search.cost import price
from search.cost.price import resolve_lengths
from search.data.batches import Batch
from search.losses import loss
from tests.models import inputs

EXAMPLES = Path(__file__).parents[1] / "examples"


class Case(NamedTuple):
    """An example of the zoo with other sizes (by path), at a batch and, where it is open, a length."""

    file: str
    batch: int
    length: int | None = None
    set: Mapping[str, Any] = {}

    def spec(self) -> Spec:
        return load(EXAMPLES / "zoo" / f"{self.file}.yaml", set=self.set)


def sizes(width: int, layers: int | None, vocab: int | None, **under: Mapping[str, Any]) -> dict[str, Any]:
    """Paths of a model's sizes, and of some of its blocks."""
    found = {f"blocks.{block}.{path}": value for block, paths in under.items() for path, value in paths.items()}
    named = {"dims.width": width, "graph.layers.times": layers, "interface.vocab": vocab}
    return {path: value for path, value in named.items() if value is not None} | found


CASES = (
    Case("language/gpt2", 1, 256),
    Case("language/gpt2", 8, 256, sizes(384, 6, 8000) | {"dims.heads": 6}),
    Case("language/llama_3_1_8b", 4, 512, sizes(512, 6, 16000, layer={
        "mixer.heads": 8, "mixer.kv_heads": 2, "channel.hidden": 1408})),
    Case("language/qwen3_0_6b", 4, 256, sizes(512, 4, 32000, layer={
        "mixer.heads": 8, "mixer.kv_heads": 4, "mixer.head_width": 64, "channel.hidden": 1536})),
    Case("language/gemma2_2b", 4, 256, sizes(512, 2, 16000, layer={
        "mixer.heads": 8, "mixer.kv_heads": 4, "mixer.head_width": 64, "channel.hidden": 2048})),
    Case("language/olmo2_7b", 2, 512, sizes(768, 4, 8000, layer={
        "mixer.heads": 12, "mixer.kv_heads": 12, "channel.hidden": 2048})),
    Case("language/bert_base", 8, 128, sizes(512, 4, 8000, layer={"mixer.heads": 8, "channel.hidden": 2048})),
    Case("language/t5_base", 4, 128, sizes(384, None, 8000, feed={"hidden": 1536}) | {
        "dims.heads": 6, "graph.encoder.times": 4, "graph.decoder.times": 4}),
    Case("language/mixtral_8x7b", 4, 256, sizes(384, 4, 8000, layer={
        "mixer.heads": 6, "mixer.kv_heads": 2, "channel.experts.body.hidden": 768})),
    Case("language/qwen3_30b_a3b", 4, 256, sizes(256, 3, 8000, sparse={
        "mixer.heads": 8, "mixer.kv_heads": 4, "mixer.head_width": 64, "channel.experts.count": 32,
        "channel.experts.body.hidden": 192, "channel.router.k": 4})),
    Case("language/deepseek_v3", 2, 256, sizes(384, 1, 8000, latent={
        "heads": 6, "query_rank": 192, "kv_rank": 96, "nope_width": 64, "rope_width": 32, "value_width": 64},
        dense={"channel.hidden": 1024}, sparse={
        "channel.experts.count": 16, "channel.experts.body.hidden": 256, "channel.shared.hidden": 256,
        "channel.router.groups": 4, "channel.router.top_groups": 2, "channel.router.k": 4},
    ) | {"graph.layers_2.times": 3}),
    Case("vit_base", 8, None, sizes(384, 12, None) | {"dims.heads": 6}),
    Case("swin_t", 4),
    Case("cait_s24", 4, None, sizes(384, 6, None)),
    Case("tnt_s", 4, None, {"graph.layers.times": 6}),
    Case("language/mamba_2_8b", 2, 256, sizes(384, 4, 8000)),
    Case("language/rwkv_4_169m", 4, 256, sizes(512, 3, 8000) | {"graph.layers_2.times": 2}),
    Case("language/recurrentgemma_2b", 2, 256, sizes(640, 1, 8000) | {"graph.layers_2.times": 1}),
    Case("language/lfm2_1_2b", 4, 256, sizes(512, 1, 16000, attending={"1.body.hidden": 1408},
        convolving={"1.body.hidden": 1408}) | {"graph.layers_2.times": 1}),
    Case("language/qwen3_next_80b", 1, 256, sizes(512, 1, 8000, attending_sparse={
        "0.body.heads": 4, "0.body.head_width": 128, "1.body.experts.count": 16, "1.body.router.k": 4}, delta_sparse={
        "0.body.heads": 8, "0.body.key_heads": 4, "1.body.experts.count": 16, "1.body.router.k": 4})),
)  # fmt: skip


class Training:
    """A model of a case with its optimizer, inputs and targets."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(0)
        spec = case.spec()
        self.interface: Any = spec.interface
        self.model = compiler.compile(spec)
        self.optimizer = torch.optim.AdamW(self.model.parameters())
        self.inputs = inputs(spec, batch=case.batch, length=resolve_lengths(spec, case.length))
        classes = getattr(self.interface, "classes", None)
        shape, values = (
            ((case.batch,), classes)
            if classes
            else (self.inputs[len(spec.graph.inputs) - 1].shape, self.interface.vocab)
        )
        self.targets = torch.randint(values, shape)

    def step(self) -> None:
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def loss(self) -> Tensor:
        value = loss(self.interface.name_, self.model(*self.inputs), Batch({}, self.targets))
        return value.task + value.added

    def there(self) -> int:
        """Bytes that are there between steps."""
        states = [value for state in self.optimizer.state.values() for value in state.values()]
        held = chain(self.model.parameters(), self.model.buffers(), states, self.inputs, [self.targets])
        return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in held}.values())


def resident(number: int) -> list[int]:
    """Bytes that a step needs above what was there: by the resident set, and as priced."""
    case = CASES[number]
    training = Training(case)
    training.step()  # states of the optimizer, and what libraries allocate once
    gc.collect()
    before = _status("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts again from here
    training.step()
    peak = _status("VmHWM")
    cost = price(case.spec(), batch=case.batch, length=case.length, device="epyc_9654")
    return [peak - before, cost.peak_training - training.there()]


def tracked(number: int) -> list[int]:
    """The same by `MemTracker`."""
    training = Training(CASES[number])
    training.step()
    tracker = MemTracker()
    tracker.track_external(training.model, training.optimizer, *training.inputs, training.targets)
    with tracker:
        before = tracker.get_tracker_snapshot("current")
        training.step()
    cpu = torch.device("cpu")
    return [tracker.get_tracker_snapshot("peak")[cpu]["Total"] - before[cpu]["Total"]]


def measure(what: str, number: int) -> None:
    """Prints what `process` reads."""
    torch.set_num_threads(1)
    print(json.dumps({"resident": resident, "tracked": tracked}[what](number)))


def process(what: str, number: int) -> list[int]:
    """What a measurement in a process of its own gives."""
    # freed tensors go back to the system at once, so that the resident set is what is in use
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", f"from benchmarks import memory; memory.measure({what!r}, {number})"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found: list[int] = json.loads(done.stdout.splitlines()[-1])
    return found


def _status(field: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))


def main() -> None:
    rows: list[dict[str, Any]] = []
    errors: dict[str, list[float]] = {"priced": [], "MemTracker": []}
    for number, case in enumerate(CASES):
        (measured, priced), (watched,) = process("resident", number), process("tracked", number)
        row: dict[str, Any] = {"model": case.file.split("/")[-1], "measured MiB": measured / 2**20}
        for name, value in (("priced", priced), ("MemTracker", watched)):
            errors[name].append(100 * (value / measured - 1))
            row |= {f"{name} MiB": value / 2**20, f"{name} error %": errors[name][-1]}
        rows.append(row)
    mean = {f"{name} error %": statistics.mean(map(abs, values)) for name, values in errors.items()}
    report("memory", [*rows, {"model": "mean absolute error", **mean}])


if __name__ == "__main__":
    main()
