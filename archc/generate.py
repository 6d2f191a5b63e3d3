"""``archc generate``: what a compiled language model goes on with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archc.files import echo_json
from archc.options import Json, Plugins
from archspec.config_file import CONFIG
from archspec.errors import Problem, SpecError

if TYPE_CHECKING:
    from compiler.text import Text

USUAL = 100  # tokens that are added


def generate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A compiled model: spec.yaml and weights.")],
    prompts: Annotated[list[str], typer.Argument(metavar="TEXT", help="What it goes on from; several are a batch.")],
    tokens: Annotated[
        int | None, typer.Option("--tokens", min=1, help="How many are added at most; 100 if the model reads so many.")
    ] = None,
    temperature: Annotated[float, typer.Option("--temperature", min=0, help="0 takes the likeliest token.")] = 0.0,
    top_k: Annotated[int | None, typer.Option("--top-k", min=1, help="Draw from so many likeliest tokens.")] = None,
    top_p: Annotated[
        float | None, typer.Option("--top-p", min=0, max=1, help="Draw from the likeliest tokens of this share.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Of the draws.")] = 0,
    int8: Annotated[bool, typer.Option("--int8", help="Keep weight matrices in 8 bits: fewer bytes a token.")] = False,
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """Generate text, token by token as it comes.

    \b
        archc generate compiled "def main" --tokens 50 --temperature 0.8
    """
    if top_p == 0:
        raise SpecError(Problem("--top-p 0 leaves no token to draw", "--temperature 0 takes the likeliest"))
    import compiler
    from compiler.decoding import refusals
    from compiler.text import Text

    model = compiler.load(folder)
    spec: Any = model.spec
    interface = spec.interface.name_
    if interface not in ("causal_lm", "seq2seq_lm"):
        raise SpecError(Problem(f"{spec.name} is {interface}; causal_lm and seq2seq_lm go on with text", None))
    problems = list(refusals(spec))
    if problems:
        raise SpecError(*problems)
    text = Text.of(model)
    if text.tokenizer is None and CONFIG in getattr(model, "beside", {}):
        typer.echo(f"{spec.name} came without a tokenizer.json: each byte is a token", err=True)
    rows, source = text.prompts(model, prompts)
    longest, most = max(map(len, rows)), spec.interface.length
    wanted = tokens or max(1, min(USUAL, most - longest))
    if longest + wanted > most:
        cause = f"{longest} tokens and {wanted} more; this model reads at most {most}"
        raise SpecError(Problem(cause, f"--tokens {most - longest}" if most > longest else "a shorter prompt"))
    if int8:
        compiler.quantize(model)
    else:
        compiler.pack(model, rows=len(rows))
    shown = ["" for _ in prompts] if source else prompts
    found = _stream(model, rows, text, shown, quiet=json, tokens=wanted, temperature=temperature, top_k=top_k,
                    top_p=top_p, seed=seed, source=source)  # fmt: skip
    if json:
        echo_json(
            [
                {"prompt": prompt, "text": text.going_on(row, ids), "tokens": ids}
                for prompt, row, ids in zip(prompts, rows, found, strict=True)
            ]
        )


def _stream(
    model: Any, rows: list[list[int]], text: Text, before: list[str], *, quiet: bool, **how: Any
) -> list[list[int]]:  # fmt: skip
    """Runs the generation; one sequence is printed as it comes, several when they are whole, each after a text."""
    from compiler.generate import stream

    found: list[list[int]] = [[] for _ in rows]
    ended = [False] * len(rows)
    alone = len(rows) == 1 and not quiet
    shown = ""
    if alone:
        sys.stdout.write(before[0])
    try:
        for step in stream(model, rows, stop=text.stop, **how):
            for number, token in enumerate(step):
                ended[number] = ended[number] or token in text.stop
                if not ended[number]:
                    found[number].append(token)
            if alone:
                whole = text.going_on(rows[0], found[0])
                if not whole.endswith("\ufffd"):  # half a character waits for the other half
                    sys.stdout.write(whole[len(shown) :])
                    sys.stdout.flush()
                    shown = whole
    except KeyboardInterrupt:
        if alone:
            typer.echo()
        raise
    if alone:
        typer.echo(text.going_on(rows[0], found[0])[len(shown) :])
    elif not quiet:
        for prompt, row, ids in zip(before, rows, found, strict=True):
            typer.echo(f"{prompt}{text.going_on(row, ids)}\n")
    return found
