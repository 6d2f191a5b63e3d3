"""Members of library spaces, made small, compile and learn."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import torch

import compiler
from spaces.space import library, load
from tests.models import inputs

TEXT = {"interface.vocab": 97, "interface.length": 24}
SMALL: dict[str, dict[str, Any]] = {
    "hw_gpt_s": {**TEXT, "dims.width": 32, "dims.layers": 2},
    "hw_gpt_m": {**TEXT, "dims.width": 32, "dims.layers": 2},
    "hw_gpt_l": {**TEXT, "dims.width": 32, "dims.layers": 2},
    "gpt_lts": {**TEXT, "dims.width": 128, "graph.layers.times": 2},
    "hat": {**TEXT, "dims.encoder_width": 32, "dims.decoder_width": {"choose": [32, 48]}},
    "flexibert": TEXT,
    "mad_hybrid": TEXT,
    "small_decoder": TEXT,
    "mixers": TEXT,
    "wide_attention": {"interface.vocab": 97},
    "heterogeneous_heads": TEXT,
    "brainformer": {**TEXT, "dims.width": 32, "dims.blocks": 1, "dims.experts": 3},
    "language_model": TEXT,
    "hybrid_attention_convolution": TEXT,
    "vision_transformer": {},
}
for name in ("tiny", "small", "base"):
    SMALL[f"autoformer_{name}"] = {
        "interface.image": [32, 32, 3], "interface.classes": 10, "dims.width": 32, "dims.layers": 2
    }  # fmt: skip


@pytest.mark.parametrize("name", library())
def test_small_members_learn(name: str) -> None:
    space, random = load(name, set=SMALL[name]), Random(0)
    for _ in range(3):
        spec = space.sample(random).spec
        model = compiler.compile(spec)
        found = model(*inputs(spec, batch=2, length=24))
        logits = found if isinstance(found, torch.Tensor) else next(iter(found.values()))
        logits.square().mean().backward()
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)
        assert sum(bool(gradient.any()) for gradient in gradients) > 0.5 * len(list(model.parameters()))
