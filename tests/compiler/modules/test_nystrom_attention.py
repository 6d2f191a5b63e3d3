"""Nyström attention against the released one, and against exact attention."""

from typing import Any

import pytest
import torch

from compiler.logical import logical
from tests.compiler.modules.bodies import assert_close, body, by_pairs, under
from tests.models import perturbed

FIELDS = "heads: 2, linears: {out: no_matrix}"


@pytest.mark.parametrize("landmarks", [4, 8, 40])
@torch.no_grad()
def test_nystrom_attention_is_that_of_transformers(landmarks: int) -> None:
    theirs: Any = pytest.importorskip("transformers.models.nystromformer.modeling_nystromformer")
    config = theirs.NystromformerConfig(
        hidden_size=16, num_attention_heads=2, num_landmarks=landmarks, segment_means_seq_len=40, conv_kernel_size=5
    )
    attention = perturbed(theirs.NystromformerSelfAttention(config)).eval()
    words = "all" if landmarks == 40 else landmarks
    ours = body(
        f"{{name: a, kind: nystrom_attention, {FIELDS}, landmarks: {words}, convolution: 5, segments: all, "
        "coefficient: batch}",
        interface="padding: true",
    )
    views = logical(ours)
    for name, value in attention.state_dict().items():
        views["a.filter" if name.startswith("conv") else f"a.{name}"].copy_(value)
    x, valid = torch.randn(3, 40, 16), torch.arange(40) < torch.tensor([[40], [23], [1]])
    mask = torch.where(valid, 0.0, torch.finfo(torch.float32).min)[:, None, None]
    assert_close(ours(x, valid), attention(x, mask)[0])


@pytest.mark.parametrize("left", [False, True])
@torch.no_grad()
def test_padding_makes_no_landmark(left: bool) -> None:
    node = "{name: a, kind: nystrom_attention, heads: 2, landmarks: 4, convolution: 3}"
    padded, plain = body(node, interface="padding: true"), body(node)
    x, lengths = torch.randn(4, 12, 16), (12, 7, 4, 2)
    for sample, length in enumerate(lengths):
        real = slice(12 - length, 12) if left else slice(0, length)
        valid = torch.zeros(4, 12, dtype=torch.bool)
        valid[sample, real] = True
        assert_close(padded(x, valid)[sample, real], plain(x[sample : sample + 1, real])[0])


@torch.no_grad()
def test_landmarks_are_means_of_equal_segments() -> None:
    from compiler.modules.nystrom_attention import segments

    shares, empty = segments(torch.empty(1, 1, 12, 1), None, 4)
    assert torch.equal(shares[0, 0], torch.eye(4).repeat_interleave(3, dim=1) / 3)
    assert not empty.any()
    shares, empty = segments(torch.empty(1, 1, 2, 1), None, 4)
    assert shares[0, 0].sum(0).tolist() == [1, 1] and empty.sum() == 2


@torch.no_grad()
def test_a_landmark_for_each_token_makes_exact_attention() -> None:
    model = body("{name: a, kind: nystrom_attention, heads: 2, landmarks: 6, bias: false, iterations: 24}")
    x = 2 * torch.randn(2, 6, 16)
    assert_close(model(x), by_pairs(under(model, "a"), x, 2), 1e-3)
