"""Tiny models and decoders as proxies see them."""

import textwrap

import pytest
import torch

from archspec import spec as specs
from archspec.source import parse
from search.data.batches import Batch
from search.data.recall import InContextRecall
from search.objectives import Probed
from search.proxies.probing import probed
from search.recipe import Recipe

DECODER = """
    archspec: 1
    name: small
    interface: {{kind: causal_lm, vocab: 16, length: 32}}
    dims: {{width: 32}}
    graph:
      - {{kind: token_embedding, width: width}}
      - {{kind: repeat, times: 2, body: {body}}}
      - rms_norm
      - {{kind: lm_head, tied: {tied}}}
"""
LAYER = """{kind: transformer_layer, norm: rms_norm, mixer: {kind: attention, heads: 4, kv_heads: 2, position: rope},
      channel: {kind: glu, hidden: 48}}"""


@pytest.fixture
def classifier():
    """A module as a classifier of images that are already flat, with random targets of ten classes."""

    def build(module, *, batch=6, inputs=(5,), seed=0):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(batch, *inputs, generator=generator)
        dtype = next((p.dtype for p in module.parameters()), torch.float32)
        targets = torch.randint(0, 3, (batch,), generator=generator)
        return Probed(module.eval(), "image_classification", Batch({"input": x.to(dtype)}, targets))

    return build


@pytest.fixture
def decoder():
    """A compiled decoder and a batch of recall."""

    def build(body=LAYER, *, tied="false", seed=0, batch=8):
        spec = specs.from_tree(parse(textwrap.dedent(DECODER.format(body=body, tied=tied)), "x"))
        data = InContextRecall(length=32).open(spec.interface)
        return probed(spec, data, Recipe(batch=batch, seed=seed))

    return build
