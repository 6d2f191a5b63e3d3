"""Greedy decoding of a 125M decoder, 256 tokens after a prompt of 16, against ``transformers.generate``: CPU time.

    python -m benchmarks.decode

One thread. As compiled; with weights packed for the number of rows (`compiler.pack`); with weights in 8 bits
(`compiler.quantize`).
"""

from __future__ import annotations

from functools import partial

import torch

import compiler
from benchmarks.timing import interleaved, report
from compiler.correspondence import fill
from compiler.initialise import allocate

PROMPT, TOKENS = 16, 256


def models() -> tuple[torch.nn.Module, torch.nn.Module]:
    """The same weights, ours and theirs."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from archspec.family import family

    config = LlamaConfig(
        vocab_size=32000, hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12,
        num_key_value_heads=12, max_position_embeddings=2048, tie_word_embeddings=False, eos_token_id=None,
    )  # fmt: skip
    theirs = LlamaForCausalLM(config).eval()
    imported = family("llama").expand(config.to_dict())
    ours = compiler.compile(imported.spec, device="meta")
    allocate(ours, device="cpu", dtype=torch.float32)
    fill(ours, imported, {name: lambda value=value: value for name, value in theirs.state_dict().items()}, "theirs")
    return ours.eval(), theirs


def run_ours(model: torch.nn.Module, prompt: torch.Tensor) -> object:
    return compiler.generate(model, prompt, tokens=TOKENS)


def run_theirs(model: torch.nn.Module, prompt: torch.Tensor) -> object:
    mask = torch.ones_like(prompt)
    return model.generate(prompt, attention_mask=mask, max_new_tokens=TOKENS, do_sample=False, pad_token_id=0)


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        for batch in (1, 8):
            prompt = torch.randint(5, 32000, (batch, PROMPT))
            plain, theirs = (model.to(dtype) for model in models())
            variants = {"transformers": partial(run_theirs, theirs, prompt), "plain": partial(run_ours, plain, prompt)}
            packed = compiler.pack(models()[0].to(dtype), rows=batch)
            variants["packed"] = partial(run_ours, packed, prompt)
            if dtype == torch.float32:
                variants["8 bits"] = partial(run_ours, compiler.quantize(models()[0]), prompt)
            rows.append(
                figure(f"{dtype}, batch {batch}".removeprefix("torch."), batch, interleaved(variants, rounds=3))
            )
    report("decode", rows, ("torch", "transformers"))


def figure(name: str, batch: int, times: dict[str, float]) -> dict[str, object]:
    """Tokens a CPU second, and how many times theirs ours are."""
    rates = {who: batch * TOKENS / seconds for who, seconds in times.items()}
    ratios = {f"{who} ratio": rate / rates["transformers"] for who, rate in rates.items() if who != "transformers"}
    return {"figure": f"tokens a CPU second, {name}", **rates, **ratios}


if __name__ == "__main__":
    main()
