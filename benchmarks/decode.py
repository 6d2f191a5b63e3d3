"""Greedy decoding of a 125M decoder, 256 tokens after a prompt of 16, against ``transformers.generate``: CPU time.

    python -m benchmarks.decode

One thread. In float32; in bfloat16; and with weights in 8 bits against float32 of transformers.
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


def main() -> None:
    torch.set_num_threads(1)
    ours, theirs = models()
    rows = []

    def run_ours(model: torch.nn.Module, prompt: torch.Tensor) -> object:
        return compiler.generate(model, prompt, tokens=TOKENS)

    def run_theirs(prompt: torch.Tensor) -> object:
        mask = torch.ones_like(prompt)
        return theirs.generate(prompt, attention_mask=mask, max_new_tokens=TOKENS, do_sample=False, pad_token_id=0)

    prompts = {batch: torch.randint(5, 32000, (batch, PROMPT)) for batch in (1, 8)}
    for batch, prompt in prompts.items():
        assert run_ours(ours, prompt[:, :4])[0] == run_theirs(prompt[:, :4])[0, 4:].tolist()
        times = interleaved(
            {"archspec": partial(run_ours, ours, prompt), "transformers": partial(run_theirs, prompt)}, rounds=3
        )
        rows.append(figure(f"float32, batch {batch}", batch, times))
    for kind in ("int8", "bfloat16"):
        if kind == "int8":
            model = compiler.quantize(ours)
        else:
            model, theirs = (one.bfloat16() for one in models())
        for batch, prompt in prompts.items():
            times = interleaved(
                {"archspec": partial(run_ours, model, prompt), "transformers": partial(run_theirs, prompt)}, rounds=3
            )
            rows.append(figure(f"{kind}, batch {batch}", batch, times))
    report("decode", rows, ("torch", "transformers"))


def figure(name: str, batch: int, times: dict[str, float]) -> dict[str, object]:
    """Tokens a second of CPU time, and how many times theirs ours are."""
    rates = {who: batch * TOKENS / seconds for who, seconds in times.items()}
    return {"figure": f"tokens a CPU second, {name}", **rates, "ratio": rates["archspec"] / rates["transformers"]}


if __name__ == "__main__":
    main()
