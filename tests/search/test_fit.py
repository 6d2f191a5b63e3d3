"""One spec trained into a folder, in parts."""

import torch

from archspec import spec
from search import checkpoint
from search.data.text import Text
from search.fit import RESULT, fit
from search.recipe import Recipe

SPEC = """
archspec: 1
name: small
interface: {kind: causal_lm, vocab: 256, length: 64}
graph:
  - {kind: token_embedding, width: 16}
  - {kind: dropout, rate: 0.1}
  - {kind: transformer_layer, norm: rms_norm, mixer: {kind: attention, heads: 2}, channel: {kind: mlp, hidden: 32}}
  - lm_head
"""


def test_a_run_is_paused_promoted_and_finished(tmp_path):
    (tmp_path / "text").write_text("to be or not to be, that is the question. " * 200)
    small = spec.loads(SPEC)
    data = Text(path=str(tmp_path / "text")).open(small.interface)
    recipe = Recipe(steps=9, batch="step_law", learning_rate="step_law", length=16)
    whole, expected = fit(small, data, recipe, tmp_path / "whole")
    parts = tmp_path / "parts"
    losses = []
    for until in (2, 4, None):
        model, result = fit(small, data, recipe, parts, until=until)
        losses.append(result.validation_loss)
        assert result.done == (until or 9)
        assert (parts / RESULT).exists() == (until is None) == (not (parts / checkpoint.NAME).exists())
    assert [loss for _, loss, _ in result.validations] == losses and losses[-1] == expected.validation_loss
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), model.parameters(), strict=True))
    assert fit(small, data, recipe, parts, until=4)[1].done == 9  # nothing is trained again
