"""Checkpoints that were written before names changed are read, and what their models had besides is passed over."""

from __future__ import annotations

import json

import torch
import transformers

from archspec.family import family
from compiler.correspondence import Correspondence, fill
from compiler.initialise import allocate
from compiler.model import compile


def test_bert_as_first_published_is_read() -> None:
    config = transformers.BertConfig(
        vocab_size=99, hidden_size=48, intermediate_size=80, num_hidden_layers=1, num_attention_heads=4
    )
    state = transformers.BertForPreTraining(config).state_dict()  # with its pooler and its second head
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
           for name, value in state.items() if "predictions.decoder" not in name}  # fmt: skip
    assert old.keys() - state.keys()
    imported = family("bert").expand(json.loads(json.dumps(config.to_dict())))
    model = compile(imported.spec, device="meta")
    allocate(model, device="cpu", dtype=torch.float32)
    fill(model, imported, {name: (lambda value=value: value) for name, value in old.items()}, "old")  # type: ignore[misc]
    for name, read in Correspondence(imported, model).exported():
        assert torch.equal(read(), state[name])
