"""One flat graph computes what the blocks compute."""

import torch
from torch import fx

from archspec.spec import loads
from compiler.flatten import flatten
from compiler.model import compile
from compiler.weights import load, save

TEXT = """
archspec: 1
name: flat
interface: {kind: causal_lm, vocab: 16, length: 16}
blocks:
  layer:
    kind: transformer_layer
    mixer: {kind: attention, heads: 2, position: rope}
    channel: {kind: mlp, ratio: 2}
    dropout: 0.5
graph:
  - {kind: token_embedding, width: 16}
  - {name: layers, kind: repeat, times: 2, body: {kind: repeat, times: 2, body: layer}}
  - {kind: lm_head, tied: true}
"""
TOKENS = torch.arange(12).view(2, 6)


def test_no_block_is_called_and_the_output_is_the_same() -> None:
    model = compile(loads(TEXT)).eval()
    flat = flatten(model)
    assert not any(isinstance(module, fx.GraphModule) for module in flat.children())
    assert not any(
        isinstance(flat.get_submodule(n.target), fx.GraphModule) for n in flat.graph.nodes if n.op == "call_module"
    )
    assert torch.equal(flat(TOKENS), model(TOKENS))


def test_parameters_are_the_models_own() -> None:
    model = compile(loads(TEXT))
    assert flatten(model).state_dict(keep_vars=True) == model.state_dict(keep_vars=True)  # the very same objects


def test_either_has_a_mode_of_its_own() -> None:
    model = compile(loads(TEXT))
    flat = flatten(model).eval()
    assert torch.equal(flat(TOKENS), flat(TOKENS))
    assert not torch.equal(model(TOKENS), model(TOKENS))
    torch.manual_seed(0)
    there = model(TOKENS)
    torch.manual_seed(0)
    assert torch.equal(flat.train()(TOKENS), there)


def test_a_flat_model_is_saved_like_any_other(tmp_path) -> None:
    model = compile(loads(TEXT)).eval()
    save(flatten(model), tmp_path)
    assert torch.equal(load(tmp_path).eval()(TOKENS), model(TOKENS))
