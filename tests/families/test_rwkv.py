"""What RWKV does at inference: transformers halves its stream now and then, and the weights of what writes into it."""

import json

import pytest
import torch
import transformers

from archspec.family import family
from compiler.correspondence import fill
from compiler.initialise import allocate
from compiler.model import compile


@pytest.mark.parametrize("rescale_every", [0, 1, 3])
@torch.no_grad()
def test_logits_are_those_of_a_rescaled_stream(rescale_every: int) -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 99, "context_length": 32, "hidden_size": 48, "num_hidden_layers": 7}
    config = transformers.RwkvConfig(**sizes, rescale_every=rescale_every)
    theirs = transformers.RwkvForCausalLM(config)
    for parameter in theirs.parameters():
        parameter.add_(torch.randn(parameter.shape) * 0.05)
    state = {name: value.clone() for name, value in theirs.state_dict().items()}  # the first forward changes them
    found = family("rwkv").expand(json.loads(json.dumps(config.to_dict())))
    ours = compile(found.spec, device="meta")
    allocate(ours, device="cpu", dtype=torch.float32)
    fill(ours, found, {name: (lambda value=value: value) for name, value in state.items()}, "rwkv")
    tokens = torch.randint(0, 99, (2, 20))
    wanted = theirs.eval()(tokens, use_cache=False).logits
    assert wanted.std() > 0.05  # the comparison is of something
    torch.testing.assert_close(ours.eval()(tokens), wanted, atol=1e-5, rtol=0)
