"""Head confidence, against attention by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from archspec.errors import SpecError
from search.proxies.attention import HeadConfidence


class Heads(nn.Module):
    """Attention over an input that is queries and keys at once, in one of its ways to be computed."""

    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward(self, input):
        q, k = input, input[:, :2]  # four heads share two of keys
        seen = torch.ones(7, 7, dtype=torch.bool).tril()
        if self.how == "causal":
            return F.scaled_dot_product_attention(q, k, k, is_causal=True, enable_gqa=True)
        if self.how == "mask":
            return F.scaled_dot_product_attention(q, k, k, attn_mask=seen, enable_gqa=True)
        if self.how == "bias":
            bias = torch.zeros(7, 7).masked_fill(~seen, float("-inf"))
            return F.scaled_dot_product_attention(q, k, k, attn_mask=bias, enable_gqa=True)
        scores = (q @ k.repeat_interleave(2, 1).mT / 8**0.5).masked_fill(~seen, float("-inf"))
        return scores.softmax(-1) @ k.repeat_interleave(2, 1)


@pytest.mark.parametrize("how", ["causal", "mask", "bias", "by hand"])
def test_it_is_the_mean_of_the_largest_weights(classifier, how):
    probed = classifier(Heads(how), inputs=(4, 7, 8))
    x = probed.batch.inputs["input"].double().numpy()
    largest = []
    for sample in x:
        for head in range(4):
            for query in range(7):
                scores = [sample[head][query] @ sample[head // 2][key] / 8**0.5 for key in range(query + 1)]
                weights = torch.tensor(scores).softmax(0)
                largest.append(weights.max().item())
    assert HeadConfidence().probe(probed) == pytest.approx(sum(largest) / len(largest), rel=1e-5)


def test_heads_that_look_everywhere_have_that_of_the_harmonic_numbers(decoder):
    probed = decoder()
    for name, weight in probed.weights.items():
        if "mixer" in name and "out" not in name:
            weight.data.zero_()
    assert HeadConfidence().probe(probed) == pytest.approx(sum(1 / t for t in range(1, 33)) / 32, rel=1e-5)


def test_soft_capped_attention_by_hand_is_seen_too(decoder):
    layer = "{kind: residual, norm: rms_norm, body: {kind: attention, heads: 2, softcap: %s}}"
    capped, plain = (HeadConfidence().probe(decoder(layer % cap)) for cap in ("1e6", "null"))
    assert capped == pytest.approx(plain, rel=1e-4)


def test_a_model_without_attention_is_refused(decoder):
    with pytest.raises(SpecError, match="no attention heads"):
        HeadConfidence().probe(decoder("{kind: residual, norm: rms_norm, body: {kind: mlp, hidden: 40}}"))
