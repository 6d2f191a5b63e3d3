"""Convolutions against the released model, and a causal one against torch's."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from compiler.modules.convolution import Slide
from tests.compiler.modules.bodies import assert_close, body


@torch.no_grad()
def released(bias: bool) -> tuple[Any, Any]:
    """Their module and ours with its weights."""
    lfm: Any = pytest.importorskip("transformers.models.lfm2.modeling_lfm2")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "layer_types": ["conv", "conv"]}
    theirs = lfm.Lfm2ShortConv(lfm.Lfm2Config(**sizes, conv_bias=bias), 0)
    for parameter in theirs.parameters():
        parameter.copy_(torch.randn(parameter.shape) * 0.5)
    node = f"{{kind: short_convolution, bias: {str(bias).lower()}}}"
    ours = body(node, "token: n", 16, interface="padding: true", causal="token")
    names = {"conv": "convolution", "in_proj": "inputs", "out_proj": "out"}
    state = {f"{names[name.split('.')[0]]}.{name.split('.')[1]}": value for name, value in theirs.named_parameters()}
    ours.load_state_dict({f"short_convolution.{name}": value for name, value in state.items()})
    return theirs, ours


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("tokens", [1, 9])
@torch.no_grad()
def test_short_convolution_is_that_of_transformers(tokens: int, bias: bool) -> None:
    theirs, ours = released(bias)
    x = torch.randn(2, tokens, 16)
    assert_close(ours(x, torch.ones(2, tokens, dtype=torch.bool)), theirs(x))


@pytest.mark.parametrize("left", [True, False])
@torch.no_grad()
def test_padding_is_that_of_transformers(left: bool) -> None:
    theirs, ours = released(bias=False)
    x, place = torch.randn(2, 20, 16), torch.arange(20)
    valid = torch.stack((place >= 0, place >= 7 if left else place < 13))
    assert_close(ours(x, valid)[valid], theirs(x, attention_mask=valid.float())[valid])


@pytest.mark.parametrize("dilation", [1, 3])
def test_a_causal_convolution_has_the_gradients_of_torch(dilation: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 20, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    taps = torch.randn(5, 1, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    ours = Slide(dilation)(x, taps)
    theirs = F.conv1d(x.transpose(1, 2), taps, dilation=dilation, groups=5).transpose(1, 2)
    grads = [torch.autograd.grad(y.square().sum(), (x, taps)) for y in (ours, theirs)]
    for one, other in zip((ours, *grads[0]), (theirs, *grads[1]), strict=True):
        torch.testing.assert_close(one, other)
