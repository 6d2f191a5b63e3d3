"""Whole checkpoints: those written before names changed are read, and what is written `transformers` loads."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers

from archspec.family import family
from compiler.checkpoint import export_checkpoint, import_checkpoint
from compiler.correspondence import Correspondence, fill
from compiler.initialise import allocate
from compiler.model import compile

CONFIG = transformers.BertConfig(
    vocab_size=99, hidden_size=48, intermediate_size=80, num_hidden_layers=1, num_attention_heads=4
)


def test_bert_as_first_published_is_read() -> None:
    state = transformers.BertForPreTraining(CONFIG).state_dict()  # with its pooler and its second head
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
           for name, value in state.items() if "predictions.decoder" not in name}  # fmt: skip
    assert old.keys() - state.keys()
    imported = family("bert").expand(json.loads(json.dumps(CONFIG.to_dict())))
    model = compile(imported.spec, device="meta")
    allocate(model, device="cpu", dtype=torch.float32)
    fill(model, imported, {name: (lambda value=value: value) for name, value in old.items()}, "old")  # type: ignore[misc]
    for name, read in Correspondence(imported, model).exported():
        assert torch.equal(read(), state[name])


def test_tied_weights_are_written_once_and_load_with_transformers(tmp_path: Path) -> None:
    theirs = transformers.BertForMaskedLM(CONFIG)
    theirs.save_pretrained(tmp_path / "theirs")
    export_checkpoint(import_checkpoint(tmp_path / "theirs"), tmp_path / "ours")
    back, report = transformers.BertForMaskedLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values())
    for (name, wanted), found in zip(theirs.state_dict().items(), back.state_dict().values(), strict=True):
        assert torch.equal(found, wanted), name
