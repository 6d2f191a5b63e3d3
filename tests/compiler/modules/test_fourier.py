"""Fourier mixing against the released model and against each sequence alone."""

from typing import Any

import pytest
import torch

from archspec.errors import SpecError
from tests.compiler.modules.bodies import assert_close, body


@torch.no_grad()
def test_fourier_is_that_of_transformers() -> None:
    fnet: Any = pytest.importorskip("transformers.models.fnet.modeling_fnet")
    config = fnet.FNetConfig(hidden_size=16, use_tpu_fourier_optimizations=False)
    x = torch.randn(2, 13, 16)
    assert_close(body("{kind: fourier}")(x), fnet.FNetBasicFourierTransform(config)(x)[0])


@pytest.mark.parametrize("left", [False, True])
@torch.no_grad()
def test_padding_is_not_transformed(left: bool) -> None:
    model = body("{kind: fourier}", interface="padding: true")
    x, lengths = torch.randn(3, 12, 16), (12, 7, 1)
    for sample, length in enumerate(lengths):
        real = slice(12 - length, 12) if left else slice(0, length)
        valid = torch.zeros(3, 12, dtype=torch.bool)
        valid[sample, real] = True
        found = model(x, valid)[sample]
        assert_close(found[real], torch.fft.fft2(x[sample, real]).real)
        assert not found[~valid[sample]].any()


@torch.no_grad()
def test_a_grid_is_transformed_along_all_its_axes() -> None:
    x = torch.randn(2, 4, 6, 8)
    found = body("{kind: fourier}", "row: 4, column: 6", 8)(x)
    assert_close(found.unflatten(1, (4, 6)), torch.fft.fftn(x, dim=(1, 2, 3)).real)


def test_a_causal_stream_is_refused() -> None:
    with pytest.raises(SpecError, match="causal along token"):
        body("{kind: fourier}", causal="token")
