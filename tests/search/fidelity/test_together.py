"""Models trained together are what they are when trained one by one, or it is said why they cannot be."""

import math
import re

import pytest
import torch
from torch import nn

import compiler
from archspec import spec
from archspec.kinds.interface import ImageClassification
from search.data.batches import Batch
from search.data.digits import Digits
from search.data.text import Text
from search.fidelity.alike import reason
from search.fidelity.together import faster, train_together
from search.fit import fit
from search.losses import LOSSES
from search.outcome import TrainingFailed
from search.recipe import Recipe
from search.train import train
from tests.models import inputs
from tests.specs import kind_specs

LAYER = "{kind: transformer_layer, norm: %s, mixer: %s, channel: {kind: %s, hidden: 24}}"
TEXT = """
archspec: 1
name: small
interface: {kind: %s, vocab: 257, length: 32}
graph: [{kind: token_embedding, width: 16}, %s, lm_head]
"""
ATTENTION = "{kind: attention, heads: 2%s}"
GRAPHS = {
    "decoder": ("causal_lm", f"{{kind: repeat, times: 2, body: {LAYER}}}, rms_norm"
                % ("rms_norm", ATTENTION % ", kv_heads: 1, position: rope", "glu")),
    "dropout": ("causal_lm", f"learned_position, {{kind: dropout, rate: RATE}}, {LAYER}, {{kind: drop_path, rate: 0.2}}"
                % ("layer_norm", ATTENTION % "", "mlp")),
    "encoder": ("masked_lm", LAYER % ("layer_norm", ATTENTION % ", position: alibi", "mlp")),
    "linear": ("causal_lm", LAYER % ("rms_norm", "{kind: linear_attention, heads: 2}", "mlp")),
    "convolution": ("causal_lm", LAYER % ("rms_norm", "{kind: short_convolution, size: 3}", "mlp")),
    "window": ("causal_lm", LAYER % ("rms_norm", ATTENTION % ", window: 4, position: rope", "glu")),
}  # fmt: skip


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "text"
    path.write_text("to be or not to be, that is the question: whether 'tis nobler in the mind to suffer. " * 200)
    return lambda small: Text(path=str(path)).open(small.interface)


def specs(name, count=3):
    interface, graph = GRAPHS[name]
    return [spec.loads(TEXT % (interface, graph.replace("RATE", f"0.{n + 1}"))) for n in range(count)]


def members(found):
    return [compiler.compile(small, seed=number) for number, small in enumerate(found)]


def recipes(count=3, **fields):
    said = {"steps": 6, "batch": 4, "length": 16, "clip": 0.3, **fields}
    return [Recipe(seed=n, learning_rate=1e-3 * (n + 1), **said) for n in range(count)]


def assert_alike(alone, together, results, others):
    for one, other in zip(results, others, strict=True):
        assert one.losses == pytest.approx(other.losses, rel=1e-5)
        assert one.validation_loss == pytest.approx(other.validation_loss, rel=1e-5)
        assert one.targets == other.targets and len(one.validations) == len(other.validations)
    for one, other in zip(alone, together, strict=True):
        for name, value in one.state_dict().items():
            torch.testing.assert_close(other.state_dict()[name], value, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", GRAPHS)
def test_members_train_as_they_do_alone(name, text):
    found = specs(name)
    data = text(found[0])
    alone, together = members(found), members(found)
    assert reason(together, data, recipes()) is None
    results = [train(model, data, recipe) for model, recipe in zip(alone, recipes(), strict=True)]
    assert_alike(alone, together, results, train_together(together, data, recipes()))


def test_passes_add_up_and_validations_come_between(text):
    found = specs("dropout")
    said = recipes(accumulate=2, evaluate_every=2, clip=None)
    alone, together = members(found), members(found)
    results = [train(model, text(found[0]), recipe) for model, recipe in zip(alone, said, strict=True)]
    assert_alike(alone, together, results, train_together(together, text(found[0]), said))


class Classifier(nn.Module):
    """Running statistics and a tied weight."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        # A bias before batch norm has no gradient but rounding, which Adam would scale up.
        self.inner, self.norm, self.head = nn.Linear(64, 64, bias=False), nn.BatchNorm1d(64), nn.Linear(64, 10)
        self.again = nn.Linear(64, 64)
        self.again.weight = self.inner.weight

    def forward(self, image):
        hidden = nn.functional.dropout(self.norm(self.inner(image.flatten(1))).relu(), 0.2, self.training)
        return self.head(self.again(hidden).relu())


def test_running_statistics_and_tied_weights_are_each_members_own():
    data = Digits().open(ImageClassification(image=[8, 8, 1], classes=10))
    alone, together = ([Classifier(seed) for seed in range(3)] for _ in range(2))
    results = [train(model, data, recipe) for model, recipe in zip(alone, recipes(), strict=True)]
    assert reason(together, data, recipes()) is None
    assert_alike(alone, together, results, train_together(together, data, recipes()))
    assert together[0].again.weight is together[0].inner.weight and together[0].norm.num_batches_tracked == 6


def test_a_group_pauses_and_each_goes_on_alone(text, tmp_path):
    found = specs("dropout")
    data, said = text(found[0]), recipes(steps=9)
    folders = [tmp_path / str(number) for number in range(3)]
    whole = [
        fit(small, data, recipe, tmp_path / f"whole{recipe.seed}") for small, recipe in zip(found, said, strict=True)
    ]
    paused = train_together(members(found), data, said, folders=folders, until=3)
    assert all(result.done == 3 and result.validated(3) for result in paused)
    train_together(members(found), data, said, folders=folders, until=6)
    parts = [fit(small, data, recipe, folder) for small, recipe, folder in zip(found, said, folders, strict=True)]
    assert all([step for step, _, _ in result.validations] == [3, 6, 9] for _, result in parts)
    for (model, result), (other, expected) in zip(parts, whole, strict=True):
        assert result.losses == pytest.approx(expected.losses, rel=1e-5)
        for one, two in zip(model.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(one, two, rtol=2e-4, atol=2e-5)


def test_a_group_that_ends_is_taken_up_without_training(text, tmp_path):
    found = specs("decoder", 2)
    data, said = text(found[0]), recipes(2)
    folders = [tmp_path / "a", tmp_path / "b"]
    expected = train_together(members(found), data, said, folders=folders)
    steps = []
    for small, recipe, folder, result in zip(found, said, folders, expected, strict=True):
        _, stored = fit(small, data, recipe, folder, progress=lambda *told: steps.append(told))
        assert stored.losses == result.losses and stored.bits_per_byte == result.bits_per_byte is not None
    assert not steps


def test_a_member_that_fails_is_named_and_harms_nobody(text, tmp_path):
    found = specs("decoder")
    broken = members(found)
    with torch.no_grad():
        next(broken[1].parameters()).fill_(math.nan)
    folders = [tmp_path / str(number) for number in range(3)]
    results = train_together(broken, text(found[0]), recipes(), folders=folders)
    assert isinstance(results[1], TrainingFailed) and "the loss is nan at step 1" in results[1].reason
    assert [folder.exists() for folder in folders] == [True, False, True]
    alone = train(members(found)[2], text(found[0]), recipes()[2])
    assert results[2].losses == pytest.approx(alone.losses, rel=1e-5)


def with_attention(fields):
    return [spec.loads(TEXT % ("causal_lm", LAYER % ("rms_norm", ATTENTION % f, "mlp"))) for f in fields]


MIXTURE = (
    "{kind: residual, norm: rms_norm, body: {kind: mixture, experts: [{kind: mlp, ratio: 1}, {kind: glu, ratio: 2}]}}"
)


@pytest.mark.parametrize(
    ("found", "said", "why"),
    [
        (specs("decoder", 1), recipes(1), "one model alone"),
        (specs("decoder", 2), [Recipe(batch=4, length=16), Recipe(batch=5, length=16)], "recipes differ"),
        ([specs("decoder", 1)[0], specs("encoder", 1)[0]], recipes(2), "they differ in|only one of them has"),
        (with_attention([", dropout: 0.1", ", dropout: 0.1"]), recipes(2), "attention draws its dropout inside"),
        (with_attention(["", ", dropout: 0.1"]), recipes(2), r"they differ in .*dropout"),
        (with_attention(["", ", window: 3"]), recipes(2), r"they differ in .*window"),
        ([spec.loads(TEXT % ("causal_lm", MIXTURE))] * 2, recipes(2), "dynamic shape"),
        (
            [spec.loads(TEXT % ("causal_lm", LAYER % ("rms_norm", "{kind: mamba, state: 4}", "mlp")))] * 2,
            recipes(2),
            "autograd.Function",
        ),
    ],
)
def test_what_cannot_be_trained_together_says_why(found, said, why, text):
    models = members(found)
    before = [{name: value.clone() for name, value in model.state_dict().items()} for model in models]
    told = reason(models, text(found[0]), said)
    assert told is not None and re.search(why, told), told
    for model, state in zip(models, before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_how_much_faster_is_measured_and_changes_nothing(text):
    found = specs("decoder", 2)
    models = members(found)
    before = [model.state_dict()["token_embedding.weight"].clone() for model in models]
    assert 0.05 < faster(models, text(found[0]), recipes(2), steps=2) < 20
    assert all(
        torch.equal(model.state_dict()["token_embedding.weight"], value)
        for model, value in zip(models, before, strict=True)
    )


class Noise:
    """Random inputs and targets for any interface that has a loss."""

    bytes_per_target = None
    fingerprint = "noise"

    def __init__(self, small):
        self.small, self.interface = small, small.interface
        self.names = compiler.compile(small, device="meta").signature.names

    def batch(self, step, *, seed, size, length):
        drawn = inputs(self.small, batch=size, length=8, seed=100 * seed)
        images = self.interface.name_ == "image_classification"
        high, shape = (self.interface.classes, (size,)) if images else (self.interface.vocab, (size, 8))
        targets = torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))
        return Batch(dict(zip(self.names, drawn, strict=True)), targets)


@pytest.mark.slow
def test_most_kinds_can_be_trained_together():
    refused = {}
    count = 0
    for name, said in kind_specs().items():
        small = spec.loads(said)
        if small.interface.name_ in LOSSES and small.interface.name_ != "sequence_classification":
            count += 1
            if why := reason(members([small] * 2), Noise(small), recipes(2)):
                refused[name.rsplit("-", 1)[0]] = why
    assert count > 300 and set(refused) <= {
        *("blend", "label_router", "mamba", "mixture", "mixture_of_attention", "rg_lru", "rwkv_time_mixing"),
        *("sliding_window_attention", "sparse_mixer", "top_k"),
    }, refused
