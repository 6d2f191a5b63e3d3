"""Trains the small decoders whose validation curves are in ``data/curves.json``; takes some minutes.

python -m tests.search.fidelity.train_curves
"""

import json
import random
from pathlib import Path

import torch

import compiler
from archspec import spec
from search.cost.price import price
from search.data.text import Text
from search.recipe import Recipe
from search.train import train

SPEC = """
archspec: 1
name: decoder
interface: {{kind: causal_lm, vocab: 256, length: 64}}
graph:
  - {{kind: token_embedding, width: {width}}}
  - kind: repeat
    times: {layers}
    body:
      kind: transformer_layer
      norm: {norm}
      mixer: {{kind: attention, heads: {heads}, position: {position}}}
      channel: {{kind: {channel}, hidden: {hidden} * width_in}}
  - rms_norm
  - {{kind: lm_head, tied: {tied}}}
"""
RECIPE = Recipe(steps=243, batch=8, length=64, learning_rate=4e-3, evaluate_every=9, validation_batches=8)
CHOICES = {
    "width": [24, 32, 48, 64],
    "layers": [1, 2, 3],
    "norm": ["rms_norm", "layer_norm"],
    "heads": [1, 2, 4],
    "position": ["rope", "alibi", "none"],
    "channel": ["glu", "mlp"],
    "hidden": [1, 2, 3],
    "tied": ["true", "false"],
}
CANDIDATES, SEEDS, REPEATED = 24, 3, 4


def main() -> None:
    torch.set_num_threads(1)
    chance = random.Random(0)
    rows = []
    for number in range(CANDIDATES):
        choices = {name: chance.choice(values) for name, values in CHOICES.items()}
        small = spec.loads(SPEC.format(**choices))
        data = Text(megabytes=4).open(small.interface)
        for seed in range(SEEDS if number < REPEATED else 1):
            recipe = RECIPE.model_copy(update={"seed": seed})
            result = train(compiler.compile(small, seed=seed), data, recipe)
            curve = [[step, round(loss, 5)] for step, loss, _ in result.validations]
            cost = price(small).parameters
            rows.append({"candidate": number, "seed": seed, "choices": choices, "parameters": cost, "curve": curve})
            print(number, seed, cost, curve[-1], round(result.wall_seconds, 1), flush=True)
            stored = {"recipe": RECIPE.model_dump(mode="json"), "data": data.fingerprint, "runs": rows}
            (Path(__file__).parent / "data" / "curves.json").write_text(json.dumps(stored) + "\n")


if __name__ == "__main__":
    main()
