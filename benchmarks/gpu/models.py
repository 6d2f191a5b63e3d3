"""The models whose latencies and memory are measured: forty that differ in kind and size, drawn once from a seed."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from archspec.spec import Spec, loads


class Model(NamedTuple):
    """A spec, and the sizes at which it is run."""

    spec: Spec
    batch: int
    length: int | None
    context: int | None  # before a decoded token; None for what does not decode


def models(*, seed: int = 0, small: bool = False) -> Iterator[Model]:
    """Twenty-two decoders, six mixtures, four hybrids and eight vision transformers.

    Args:
        small: an eighth of the width, for a CPU.
    """
    random = Random(seed)
    unit = 8 if small else 64
    for number in range(22):
        yield _decoder(random, unit, number)
    for number in range(6):
        yield _decoder(random, unit, number, experts=True)
    for number in range(4):
        yield _hybrid(random, unit, number)
    for number in range(8):
        yield _vision(random, unit, number)


def _decoder(random: Random, unit: int, number: int, *, experts: bool = False) -> Model:
    heads = random.choice([4, 6, 8, 12, 16, 20, 24] if not experts else [4, 8, 12])
    width, layers = heads * unit, random.choice([4, 6, 8, 12, 16] if not experts else [2, 4])
    kv_heads = random.choice([k for k in (1, 2, 4, heads) if heads % k == 0])
    hidden = int(width * random.choice([1, 2, 2.5, 3, 4]))
    norm = random.choice(["rms_norm", "layer_norm"])
    channel = random.choice([f"{{kind: glu, hidden: {hidden}}}", f"{{kind: mlp, hidden: {hidden}}}"])
    if experts:
        count, k = random.choice([(8, 2), (16, 2), (32, 4)])
        channel = f"{{kind: mixture, router: {{kind: top_k, k: {k}}}, experts: {{count: {count}, body: {channel}}}}}"
    text = f"""
archspec: 1
name: {"mixture" if experts else "decoder"} {number}
interface: {{kind: causal_lm, vocab: 32000, length: 8192}}
graph:
  - {{kind: token_embedding, width: {width}}}
  - kind: repeat
    name: layers
    times: {layers}
    body:
      kind: transformer_layer
      norm: {norm}
      mixer: {{kind: attention, heads: {heads}, kv_heads: {kv_heads}, position: rope}}
      channel: {channel}
  - {norm}
  - lm_head
"""
    batch, length = random.choice([(1, 512), (1, 2048), (4, 512), (4, 1024), (8, 512)])
    return Model(loads(text), batch, length, random.choice([128, 1024, 4096]))


def _hybrid(random: Random, unit: int, number: int) -> Model:
    heads, layers = random.choice([4, 8, 12]), random.choice([1, 2, 3])
    width = heads * unit
    text = f"""
archspec: 1
name: hybrid {number}
interface: {{kind: causal_lm, vocab: 32000, length: 8192}}
blocks:
  round:
    - kind: transformer_layer
      norm: rms_norm
      mixer: {{kind: mamba2, heads: {2 * heads}, state: {unit}}}
      channel: {{kind: glu, hidden: {2 * width}}}
    - kind: transformer_layer
      norm: rms_norm
      mixer: {{kind: attention, heads: {heads}, kv_heads: 2, position: rope, window: {random.choice([128, 256])}}}
      channel: {{kind: glu, hidden: {3 * width}}}
    - kind: transformer_layer
      norm: rms_norm
      mixer: {{kind: depthwise_convolution, size: {random.choice([4, 7])}}}
      channel: {{kind: glu, hidden: {2 * width}}}
graph:
  - {{kind: token_embedding, width: {width}}}
  - {{name: layers, kind: repeat, times: {layers}, body: round}}
  - rms_norm
  - lm_head
"""
    return Model(loads(text), random.choice([1, 4]), random.choice([512, 1024]), 1024)


def _vision(random: Random, unit: int, number: int) -> Model:
    heads, layers = random.choice([3, 6, 8, 12]), random.choice([6, 12])
    text = f"""
archspec: 1
name: vision {number}
interface: {{kind: image_classification, image: [224, 224, 3], classes: 1000}}
graph:
  - {{kind: patch_embedding, size: {random.choice([14, 16])}, width: {heads * unit}}}
  - class_token
  - learned_position
  - kind: repeat
    name: layers
    times: {layers}
    body:
      kind: transformer_layer
      norm: layer_norm
      mixer: {{kind: attention, heads: {heads}, bias: true}}
      channel: {{kind: mlp, ratio: {random.choice([2, 3, 4])}, bias: true}}
  - layer_norm
  - {{kind: pool, take: class}}
  - classifier
"""
    return Model(loads(text), random.choice([1, 8, 32]), None, None)
