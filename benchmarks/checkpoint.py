"""Reading and writing a sharded checkpoint of 1 GB, against `transformers`: memory above the footprint, and time.

    python -m benchmarks.checkpoint

A llama of 267 million random weights, float32, in shards of at most 220 MB in a temporary folder. Memory is the peak
of the resident set, mapped files included, above what it was before, until every weight has been read once; each
measurement in a process of its own, which has handled a small checkpoint before. Files are in the page cache.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import report

SIZES = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 16, "num_attention_heads": 16,
         "num_key_value_heads": 8, "vocab_size": 32000}  # fmt: skip
SMALL = SIZES | {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 256}
RUNS = 3


def make(folder: str, large: str) -> None:
    """Writes the checkpoint, of random weights, or a small one."""
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(**(SIZES if large == "large" else SMALL), tie_word_embeddings=False)
    shard = "220MB" if large == "large" else "200KB"
    transformers.LlamaForCausalLM(config).save_pretrained(folder, max_shard_size=shard)


def import_checkpoint(folder: Path) -> Callable[[], Any]:
    import compiler

    return lambda: compiler.import_checkpoint(folder)


def save(folder: Path) -> Callable[[], Any]:
    import compiler

    model = compiler.import_checkpoint(folder)
    return lambda: compiler.save(model, folder / "saved")


def load(folder: Path) -> Callable[[], Any]:
    import compiler

    compiler.save(compiler.import_checkpoint(folder), folder / "saved")
    return lambda: compiler.load(folder / "saved")


def export_checkpoint(folder: Path) -> Callable[[], Any]:
    import compiler

    model = compiler.import_checkpoint(folder)
    return lambda: compiler.export_checkpoint(model, folder / "saved")


def from_pretrained(folder: Path) -> Callable[[], Any]:
    import transformers

    return lambda: transformers.LlamaForCausalLM.from_pretrained(folder)


def save_pretrained(folder: Path) -> Callable[[], Any]:
    import transformers

    model = transformers.LlamaForCausalLM.from_pretrained(folder)
    _read(model)
    return lambda: model.save_pretrained(folder / "saved")


ROWS = {"read a checkpoint": (import_checkpoint, from_pretrained), "write a checkpoint": (export_checkpoint,
        save_pretrained), "compiler.save": (save, None), "compiler.load": (load, None)}  # fmt: skip


def measure(what: str, small: str, large: str) -> None:
    """Prints bytes and seconds of one operation."""
    torch.set_num_threads(1)
    operation = globals()[what]
    _read(operation(Path(small))())  # code and buffers of the libraries
    run = operation(Path(large))
    gc.collect()
    before = _status("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts again from here
    start, worked = time.perf_counter(), time.process_time()
    _read(run())
    print(json.dumps([_status("VmHWM") - before, time.perf_counter() - start, time.process_time() - worked]))


def _read(model: Any) -> None:
    """Has every page of a model's weights in memory."""
    for parameter in model.parameters() if model is not None else ():
        parameter.detach().view(-1)[::1024].sum()


def _status(field: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))


def process(code: str) -> str:
    """What another process prints."""
    # freed tensors go back to the system at once, so that the resident set is what is in use
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", f"from benchmarks import checkpoint; {code}"]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as place:
        small, large = Path(place) / "small", Path(place) / "large"
        for folder in (small, large):
            process(f"checkpoint.make({str(folder)!r}, {folder.name!r})")
        size = sum(file.stat().st_size for file in large.glob("*.safetensors"))
        print(f"{size / 1e9:.3f} GB in {len(list(large.glob('*.safetensors')))} files")
        for what, variants in ROWS.items():
            found: dict[str, list[list[float]]] = {one.__name__: [] for one in variants if one is not None}
            for _ in range(RUNS):  # interleaved
                for one, samples in found.items():
                    call = f"checkpoint.measure({one!r}, {str(small)!r}, {str(large)!r})"
                    samples.append(json.loads(process(call).splitlines()[-1]))
                    shutil.rmtree(large / "saved", ignore_errors=True)
            for one, samples in found.items():
                memory, passed, worked = (statistics.median(column) for column in zip(*samples, strict=True))
                rows.append({"operation": what, "by": one, "memory / size": memory / size, "MiB": memory / 2**20,
                             "s": passed, "CPU s": worked})  # fmt: skip
    report("checkpoint", rows, ("torch", "transformers", "safetensors"))


if __name__ == "__main__":
    main()
