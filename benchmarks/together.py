"""Training models of equal shapes together, in one pass over stacked weights, against one after another.

    python -m benchmarks.together
    python -m benchmarks.together --device cuda

Whole steps (batches, forward, backward, clipping, AdamW) on one thread, CPU time (on a GPU, its time with the CPU's),
the least of five in turn. Members are seeds of one decoder, or of one vision transformer.
"""

from __future__ import annotations

import argparse

import torch

import compiler
from archspec import spec
from benchmarks.timing import report
from search.cost.price import price
from search.data.batches import DataSet
from search.data.digits import Digits
from search.data.text import Text
from search.fidelity.alike import reason
from search.fidelity.together import seconds
from search.recipe import Recipe

LAYERS = """
  - kind: repeat
    times: {layers}
    body:
      kind: transformer_layer
      norm: rms_norm
      mixer: {{kind: attention, heads: 2}}
      channel: {{kind: glu, hidden: 2 * width_in}}
"""
DECODER = (
    """
archspec: 1
name: decoder
interface: {{kind: causal_lm, vocab: 256, length: 256}}
graph:
  - {{kind: token_embedding, width: {width}}}
  - learned_position"""
    + LAYERS
    + "  - {{kind: lm_head, tied: true}}\n"
)
VISION = (
    """
archspec: 1
name: vision
interface: {{kind: image_classification, image: [8, 8, 1], classes: 10}}
graph:
  - {{kind: patch_embedding, size: 2, width: {width}}}
  - learned_position"""
    + LAYERS
    + "  - {{kind: pool, how: mean}}\n  - classifier\n"
)
SHAPES = [  # width, layers, batch, length
    (DECODER, 16, 2, 4, 32),
    (DECODER, 32, 2, 8, 32),
    (DECODER, 32, 2, 8, 128),
    (DECODER, 64, 2, 8, 64),
    (DECODER, 64, 4, 16, 128),
    (DECODER, 128, 4, 16, 128),
    (VISION, 16, 2, 16, None),
    (VISION, 48, 4, 32, None),
]
MEMBERS = (2, 4, 8, 16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    device = parser.parse_args().device
    torch.set_num_threads(1)
    rows = []
    for text, width, layers, batch, length in SHAPES:
        small = spec.loads(text.format(width=width, layers=layers))
        data: DataSet = (Digits() if length is None else Text(megabytes=1)).open(small.interface)
        row = {
            "model": f"{small.name} {layers} x {width}",
            "parameters": price(small).parameters,
            "batch": batch if length is None else f"{batch} x {length}",
        }
        for count in MEMBERS:
            recipes = [Recipe(batch=batch, length=length, seed=seed, device=device) for seed in range(count)]
            models = [compiler.compile(small, seed=seed) for seed in range(count)]
            if count == MEMBERS[0]:
                assert reason(models, data, recipes) is None
            alone, together = seconds(models, data, recipes, steps=5)
            row |= {"ms alone": 1e3 * alone / count, f"of {count}": alone / together}
        rows.append(row)
    report("together" if device == "cpu" else f"together_{device}", rows)


if __name__ == "__main__":
    main()
