"""Parameters and FLOPs: ours against what torch counts on the compiled model, and against other counters.

    python -m benchmarks.counters

First every example and 500 random specs: parameters as the modules have them, FLOPs of a forward pass and of a training
step as `FlopCounterMode` counts them with our formulas for what it lacks, all on the meta device. Then a LLaMA-like
decoder of 12 layers (transformers) and ViT-S/16 (timm), both with sdpa, by each counter on a CPU in a process of its
own (some leave torch patched): the error from the closed form, in percent. Multiply-adds are taken twice.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, settings
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import compiler
from archspec.canonical import text
from archspec.family import family_of
from archspec.spec import Spec, load, loads
from benchmarks.timing import report
from search.cost import price
from search.cost.operators import FORMULAS
from search.cost.price import resolve_lengths
from tests.models import inputs, runs
from tests.random_specs import specs
from tests.specs import EXAMPLES, example_files
from tests.zoo.published import import_timm

RANDOM, BATCH, LENGTH = 500, 2, 64
Counted = tuple[int, int]  # parameters, FLOPs

# --- against torch on the compiled model ------------------------------------------------------------------------------


def by_torch(model: Any, given: list[Tensor], *, training: bool) -> int:
    """FLOPs of a model on the meta device."""
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        outs = [out for out in runs(model.train(training), given).values() if out.requires_grad]
        if training:
            torch.autograd.backward(outs, [torch.empty_like(out) for out in outs])
    return int(counter.get_total_flops())


def differences(spec: Spec, length: int) -> tuple[int, int, int]:
    """How far our parameters, forward FLOPs and training FLOPs are from torch's."""
    lengths = resolve_lengths(spec, length)
    cost = price(spec, batch=BATCH, length=length, device="l4")
    model: Any = compiler.compile(spec, device="meta")
    given = [one.to("meta") for one in inputs(spec, batch=BATCH, length=lengths or length)]
    return (
        abs(cost.parameters - sum(parameter.numel() for parameter in model.parameters())),
        abs(cost.forward - by_torch(model, given, training=False)),
        abs(cost.training_step - by_torch(model, given, training=True)),
    )


def random_specs(count: int) -> list[str]:
    """Texts of so many different random specs, the same ones each time."""
    found: dict[str, None] = {}

    @settings(
        max_examples=2 * count, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(specs())
    def collect(tree: Any) -> None:
        found[text(tree)] = None

    collect()
    return list(found)[:count]


def compared(name: str, these: Iterator[tuple[Spec, int]]) -> dict[str, Any]:
    """A row: how many specs are compared, and the largest differences."""
    found = [differences(spec, length) for spec, length in these]
    most = zip(*found, strict=True)
    figures = ("parameters", "forward FLOPs", "training FLOPs")
    return {"specs": name, "compared": len(found)} | {
        f"largest difference of {figure}": max(column) for figure, column in zip(figures, most, strict=True)
    }


def examples() -> Iterator[tuple[Spec, int]]:
    for path in example_files().values():
        yield load(path), LENGTH


# --- beside other counters --------------------------------------------------------------------------------------------

S = 256
DECODER = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12,
           "num_key_value_heads": 4, "vocab_size": 32000, "max_position_embeddings": 1024, "tie_word_embeddings": True,
           "attn_implementation": "sdpa", "use_cache": False}  # fmt: skip


class Logits(nn.Module):
    """A model of one input and one output."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        out = self.model(x)
        return out if isinstance(out, Tensor) else out.logits


def decoder() -> tuple[nn.Module, Tensor]:
    from transformers import LlamaConfig, LlamaForCausalLM

    return Logits(LlamaForCausalLM(LlamaConfig(**DECODER))).eval(), torch.zeros(1, S, dtype=torch.int64)


def vit() -> tuple[nn.Module, Tensor]:
    return Logits(import_timm().create_model("vit_small_patch16_224")).eval(), torch.zeros(1, 3, 224, 224)


def decoder_by_hand() -> Counted:
    """Matrix products and the full square of attention."""
    d, f, layers, vocab, kv = 768, 2048, 12, 32000, 4 * 64
    linear = 2 * d * d + 2 * d * kv + 3 * d * f
    macs = S * (layers * linear + d * vocab) + layers * 2 * S * S * d
    return layers * (linear + 2 * d) + d + vocab * d, 2 * macs


def vit_by_hand() -> Counted:
    d, f, layers, tokens, patch, classes = 384, 1536, 12, 197, 3 * 16 * 16, 1000
    linear = 4 * d * d + 2 * d * f
    macs = tokens * layers * linear + (tokens - 1) * patch * d + d * classes + layers * 2 * tokens**2 * d
    around = (patch + 1) * d + d + tokens * d + 2 * d + (d + 1) * classes
    return layers * (linear + 4 * d + f + d + 4 * d) + around, 2 * macs


def spec_of(model: str) -> tuple[Spec, int | None]:
    """The same model as a spec."""
    if model == "ViT-S":
        return load(EXAMPLES / "zoo" / "vit_base.yaml", set={"dims.width": 384, "dims.heads": 6}), None
    from transformers import LlamaConfig

    config = LlamaConfig(**DECODER).to_dict()
    return family_of(config, "config.json").expand(config, "config.json", None).spec, S


MODELS: dict[str, tuple[Callable[[], tuple[nn.Module, Tensor]], Callable[[], Counted]]] = {
    "decoder": (decoder, decoder_by_hand),
    "ViT-S": (vit, vit_by_hand),
}


def by_flop_counter_mode(model: nn.Module, x: Tensor) -> Counted:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    return sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops()


def by_fvcore(model: nn.Module, x: Tensor) -> Counted:
    from fvcore.nn import FlopCountAnalysis, parameter_count

    return parameter_count(model)[""], 2 * FlopCountAnalysis(model, (x,)).total()


def by_calflops(model: nn.Module, x: Tensor) -> Counted:
    import_timm()  # which it imports, and which may lack torchvision
    from calflops import calculate_flops

    flops, _, parameters = calculate_flops(model, args=[x], print_results=False, output_as_string=False)
    return parameters, flops


def by_ptflops(model: nn.Module, x: Tensor, backend: str) -> Counted:
    from ptflops import get_model_complexity_info

    macs, parameters = get_model_complexity_info(
        model, (1,), input_constructor=lambda _: {"x": x}, as_strings=False, print_per_layer_stat=False, backend=backend
    )
    return parameters, 2 * macs


def by_ptflops_pytorch(model: nn.Module, x: Tensor) -> Counted:
    return by_ptflops(model, x, "pytorch")


def by_ptflops_aten(model: nn.Module, x: Tensor) -> Counted:
    return by_ptflops(model, x, "aten")


def by_thop(model: nn.Module, x: Tensor) -> Counted:
    from thop import profile

    macs, parameters = profile(model, inputs=(x,), verbose=False)
    return parameters, 2 * macs


def by_torchinfo(model: nn.Module, x: Tensor) -> Counted:
    from torchinfo import summary

    found = summary(model, input_data=x, verbose=0)
    return found.total_params, 2 * found.total_mult_adds


COUNTERS = {
    "FlopCounterMode": by_flop_counter_mode,
    "fvcore": by_fvcore,
    "calflops": by_calflops,
    "ptflops, pytorch": by_ptflops_pytorch,
    "ptflops, aten": by_ptflops_aten,
    "thop": by_thop,
    "torchinfo": by_torchinfo,
}
PEERS = ("fvcore", "calflops", "ptflops", "thop", "torchinfo")


def count(counter: str, model: str) -> None:
    """Prints what `cell` reads."""
    if counter == "archspec":
        spec, length = spec_of(model)
        cost = price(spec, length=length, device="l4")
        found: Any = cost.parameters, cost.forward
    else:
        module, x = MODELS[model][0]()
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                parameters, flops = COUNTERS[counter](module, x)
            found = int(parameters), int(flops)
        except ModuleNotFoundError as error:
            found = f"no {error.name}"
        except Exception as error:
            found = type(error).__name__
    print(json.dumps(found))


def cell(counter: str, model: str) -> list[float | str]:
    """Errors of parameters and FLOPs in percent, or what went wrong."""
    code = f"from benchmarks import counters; counters.count({counter!r}, {model!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    found = json.loads(done.stdout.splitlines()[-1])
    if isinstance(found, str):
        return [found, found]
    return [100 * (value / true - 1) for value, true in zip(found, MODELS[model][1](), strict=True)]


def installed() -> Iterator[str]:
    for package in ("torch", "transformers", "timm", *PEERS):
        with contextlib.suppress(PackageNotFoundError):
            version(package)
            yield package


def main() -> None:
    rows: list[dict[str, Any]] = [
        compared("examples", examples()),
        compared("random specs", ((loads(one), 8) for one in random_specs(RANDOM))),
    ]
    for counter in ("archspec", *COUNTERS):
        row: dict[str, Any] = {"counter": counter}
        for model in MODELS:
            row |= zip((f"{model}: parameters, error %", f"{model}: FLOPs, error %"), cell(counter, model), strict=True)
        rows.append(row)
    report("counters", rows, tuple(installed()))


if __name__ == "__main__":
    main()
