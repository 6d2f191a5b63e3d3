"""How well latencies of models that were never measured are predicted on this CPU, beside measuring them again.

    python -m benchmarks.latency                      # calibrates first; some minutes
    python -m benchmarks.latency --cpu-time           # one thread, CPU seconds: for a machine that is shared
    python -m benchmarks.latency --profile FILE.json  # with a profile that `archc calibrate -o` wrote

Forty random decoders and twenty vision and hybrid models are measured in rounds, in another order each; so are twenty
of the decoders decoding after 128 to 4096 tokens. The truth is the median of the rounds but one; that one is the
re-measurement that predictions are compared with.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from archspec.spec import Spec, loads
from benchmarks.timing import report
from search.calibration.calibrate import STEADY, calibrate
from search.calibration.check import ordered, tau
from search.calibration.clock import Clock
from search.calibration.workload import Workload
from search.cost import devices, local, price
from search.cost.fingerprint import fingerprint

Reals = NDArray[np.float64]
ROUNDS = 4
LM = "{kind: causal_lm, vocab: 4096, length: 8192}"


def decoders(random: Random, count: int) -> Iterator[Workload]:
    """Random decoders: 2 to 10 layers of width 128 to 768."""
    for number in range(count):
        width = random.choice(range(128, 769, 64))
        heads = width // random.choice([size for size in (32, 64) if width % size == 0])
        shared = random.choice([k for k in (1, 2, heads // 2, heads) if k >= 1 and heads % k == 0])
        hidden = int(width * random.choice([1, 1.5, 2, 2.5, 3, 3.5, 4]))
        norm, channel = random.choice(["rms_norm", "layer_norm"]), random.choice(["glu", "mlp"])
        layer = (
            f"{{kind: transformer_layer, norm: {norm}, channel: {{kind: {channel}, hidden: {hidden}}}, "
            f"mixer: {{kind: attention, heads: {heads}, kv_heads: {shared}, position: rope}}}}"
        )
        spec = _spec(f"decoder {number}", LM, width, random.randint(2, 10), layer, norm)
        yield Workload(spec, "prefill", random.choice([1, 1, 2]), random.choice([64, 128, 256, 512]))


def others(random: Random, count: int) -> Iterator[Workload]:
    """Vision transformers, pyramids of windows, and hybrids of windows, convolutions and recurrences, in turn."""
    for number in range(count):
        make = (_vision, _pyramid, _hybrid)[number % 3]
        yield make(random, number)


def _spec(name: str, interface: str, width: int, layers: int, body: str, norm: str) -> Spec:
    return loads(
        f"archspec: 1\nname: {name}\ninterface: {interface}\ngraph:\n"
        f"  - {{kind: token_embedding, width: {width}}}\n  - {{kind: repeat, times: {layers}, body: {body}}}\n"
        f"  - {norm}\n  - lm_head\n"
    )


def _vision(random: Random, number: int) -> Workload:
    width, head, ratio = random.choice([128, 192, 256, 384]), random.choice([32, 64]), random.choice([2, 3, 4])
    layer = (
        f"{{kind: transformer_layer, norm: layer_norm, channel: {{kind: mlp, ratio: {ratio}, bias: true}}, "
        f"mixer: {{kind: attention, heads: {width // head}, bias: true}}}}"
    )
    text = f"""
archspec: 1
name: vision {number}
interface: {{kind: image_classification, image: [224, 224, 3], classes: 1000}}
graph:
  - {{kind: patch_embedding, size: {random.choice([14, 16, 28])}, width: {width}}}
  - class_token
  - learned_position
  - {{kind: repeat, times: {random.randint(2, 10)}, body: {layer}}}
  - layer_norm
  - {{kind: pool, take: class}}
  - classifier
"""
    return Workload(loads(text), "prefill", random.choice([1, 2]))


def _pyramid(random: Random, number: int) -> Workload:
    ratio, window = random.choice([2, 3, 4]), random.choice([4, 7])
    layer = (
        f"{{kind: transformer_layer, norm: layer_norm, channel: {{kind: mlp, ratio: {ratio}, bias: true}}, mixer: "
        f"{{kind: partition, scheme: {{kind: windows, size: {window}}}, "
        "body: {kind: attention, head_width: 32, bias: true}}}"
    )
    text = f"""
archspec: 1
name: pyramid {number}
interface: {{kind: image_classification, image: [{32 * window}, {32 * window}, 3], classes: 1000}}
graph:
  - {{kind: patch_embedding, size: 4, width: {random.choice([32, 64, 96])}, norm: layer_norm}}
  - {{kind: repeat, times: {random.randint(1, 3)}, body: {layer}}}
  - {{kind: patch_merging, factor: 2, width: 2 * width_in}}
  - {{kind: repeat, times: {random.randint(1, 4)}, body: {layer}}}
  - layer_norm
  - {{kind: pool, over: [row, column]}}
  - classifier
"""
    return Workload(loads(text), "prefill", random.choice([1, 2]))


def _hybrid(random: Random, number: int) -> Workload:
    width = random.choice([128, 192, 256, 384])
    mixers = [
        f"{{kind: attention, heads: {width // 32}, kv_heads: 1, position: rope, window: {random.choice([32, 64])}}}",
        f"{{kind: depthwise_convolution, size: {random.choice([3, 7])}}}",
        f"{{kind: mamba2, heads: {width // 32}, state: {random.choice([16, 32])}}}",
    ]
    body = ", ".join(
        f"{{kind: transformer_layer, norm: rms_norm, mixer: {mixer}, channel: {{kind: glu, hidden: {2 * width}}}}}"
        for mixer in random.sample(mixers, 2)
    )
    spec = _spec(f"hybrid {number}", LM, width, random.randint(1, 4), f"[{body}]", "rms_norm")
    return Workload(spec, "prefill", 1, random.choice([128, 256, 512]))


def decoding(random: Random, models: Sequence[Workload]) -> Iterator[Workload]:
    """Decoded tokens of decoders: contexts of 128 to 4096, one sequence or eight."""
    for model in models:
        yield Workload(model.spec, "decode", random.choice([1, 8]), random.choice([128, 512, 1024, 2048, 4096]))


def rounds(workloads: Sequence[Workload], clock: Clock, budget: float) -> Reals:
    """``[rounds, models]`` seconds, corrected by the canary."""
    runs = [workload.ready() for workload in workloads]
    order, taken = Random(0), []
    for _ in range(ROUNDS):
        row: list[Any] = [None] * len(runs)
        for number in order.sample(range(len(runs)), len(runs)):
            row[number] = clock.time(runs[number], budget=budget, least=3, warm=1)
        taken.append(row)
    return np.array([[clock.corrected(one) for one in row] for row in taken])


def row(what: str, how: str, found: Reals, truth: Reals, flops: Reals) -> dict[str, Any]:
    error = np.abs(found / truth - 1)
    return {
        "what": what,
        "by": how,
        "mean error, %": 100 * float(error.mean()),
        "within 10 %, %": 100 * float((error < 0.1).mean()),
        "tau": tau(found, truth),
        "ordered within 15 % FLOPs, %": 100 * (ordered(found, truth, flops)[0] or 0.0),
    }


def compare(what: str, workloads: Sequence[Workload], clock: Clock, budget: float) -> list[dict[str, Any]]:
    """Rows of a set of workloads: FLOPs, predictions, and another measurement, against the same truth."""
    taken = rounds(workloads, clock, budget)
    costs = [
        price(one.spec, batch=one.batch, device=str(PROFILE), phase=one.phase,
              **{"context" if one.phase == "decode" else "length": one.length})
        for one in workloads
    ]  # fmt: skip
    predicted = np.array([cost.latency_ms / 1e3 for cost in costs])
    flops = np.array([float(cost.forward) for cost in costs])
    table = []
    for number in range(ROUNDS):
        truth = np.median(np.delete(taken, number, 0), axis=0)
        scaled = flops * np.exp(np.median(np.log(truth / flops)))
        table.append(
            [
                row(what, "FLOPs, scaled", scaled, truth, flops),
                row(what, "prediction", predicted, truth, flops),
                row(what, "one re-measurement", taken[number], truth, flops),
            ]
        )
    for workload, seconds, guess in zip(workloads, np.median(taken, axis=0), predicted, strict=True):
        print(f"  {workload.spec.name:12} {workload.phase} batch {workload.batch} length {workload.length}: "
              f"{1e3 * seconds:.2f} ms, predicted {1e3 * guess:.2f} ({guess / seconds - 1:+.1%})")  # fmt: skip
    return [_mean([rows[kind] for rows in table]) for kind in range(3)]


def _mean(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        key: value if isinstance(value, str) else float(np.mean([one[key] for one in rows]))
        for key, value in rows[0].items()
    }


PROFILE = Path(__file__).parent / "results" / "local_profile.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--profile", type=Path)
    parser.add_argument("--loaded", action="store_true", help="also where the machine is too loaded to be trusted")
    parser.add_argument("--budget", type=float, default=0.25, help="seconds for each model in each round")
    parser.add_argument("--only", choices=["prefill", "decode"])
    args = parser.parse_args()
    if args.cpu_time:
        torch.set_num_threads(1)
    counter = time.process_time if args.cpu_time else time.perf_counter
    if args.profile:
        profile = devices.load(str(args.profile))
    else:
        mark = fingerprint("cpu")
        profile = calibrate(
            local.measure(),
            "cpu",
            progress=_say,
            fingerprint=mark,
            counter=counter,
            steady=1.0 if args.loaded else STEADY,
        )
    assert profile.measured is not None
    clock = Clock(counter=counter, canary=profile.measured.canary or None)
    PROFILE.write_text(profile.model_dump_json(exclude_none=True))
    random, rows = Random(0), []
    models = list(decoders(random, 40))
    if args.only != "decode":
        rows += compare("prefill of 60 models", [*models, *others(random, 20)], clock, args.budget)
    if args.only != "prefill":
        rows += compare("decoded token", list(decoding(random, models[:20])), clock, args.budget)
    print(f"canary moved {clock.drift:.1%}; {torch.get_num_threads()} threads")
    report("latency", rows)


def _say(share: float, what: str) -> None:
    if round(100 * share) % 10 == 0:
        print(f"{share:4.0%} {what}", flush=True)


if __name__ == "__main__":
    main()
