"""Training: it learns, it goes on after kill -9 to bit-identical weights, and it fails with a reason."""

import math
import os
import resource
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from archspec.errors import SpecError
from archspec.kinds.interface import CausalLm, ImageClassification
from search import checkpoint
from search.data.digits import Digits
from search.data.text import Text
from search.durable import NotSaved
from search.outcome import TrainingFailed
from search.recipe import Recipe
from search.train import _optimizer, train

IMAGES = ImageClassification(image=[8, 8, 1], classes=10)
RECIPE = Recipe(steps=12, batch=8, learning_rate=1e-2)


class Classifier(nn.Module):
    """Dropout, a tied weight and a buffer that changes: what a checkpoint must not lose."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.norm, self.head = nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Linear(64, 10)
        self.again = nn.Linear(64, 64)
        self.again.weight = self.inner.weight

    def forward(self, image):
        hidden = nn.functional.dropout(self.norm(self.inner(image.flatten(1))).relu(), 0.2, self.training)
        return self.head(self.again(hidden).relu())


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_it_learns_and_counts():
    model = Classifier()
    result = train(model, Digits().open(IMAGES), Recipe(steps=60, batch=32, learning_rate=1e-2, evaluate_every=30))
    assert result.validation_accuracy > 0.8
    assert [step for step, _, _ in result.validations] == [30, 60]
    assert len(result.losses) == 60 and result.targets == 60 * 32 and result.cpu_seconds > 0


def test_a_run_that_stops_and_goes_on_equals_one_that_does_not(tmp_path):
    data, whole, parts = Digits().open(IMAGES), Classifier(), Classifier()
    expected = train(whole, data, RECIPE)

    def stop(done, of, last):
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(parts, data, RECIPE, folder=tmp_path, save_steps=5, progress=stop)
    torch.rand(3)  # a new process would not have the old generator either
    resumed = Classifier()
    steps = []
    result = train(resumed, data, RECIPE, folder=tmp_path, progress=lambda done, of, last: steps.append(done))
    assert steps[0] == 6
    assert same(resumed, whole)
    assert result.losses == expected.losses and result.validations == expected.validations


def test_a_run_that_pauses_and_goes_on_in_another_process_equals_one_that_does_not(tmp_path):
    data, whole, paused, resumed = Digits().open(IMAGES), Classifier(), Classifier(), Classifier()
    expected = train(whole, data, RECIPE)
    first = train(paused, data, RECIPE, folder=tmp_path, until=5)
    assert first.done == 5 and [step for step, _, _ in first.validations] == [5] and not same(paused, whole)
    program = textwrap.dedent(f"""
        import os, sys, torch
        torch.set_num_threads({torch.get_num_threads()})
        sys.path[:0] = {[os.getcwd(), os.path.dirname(__file__)]!r}
        from pathlib import Path
        from test_train import *
        result = train(Classifier(), Digits().open(IMAGES), RECIPE, folder=Path({str(tmp_path)!r}), until=8)
        assert result.done == 8 and [step for step, _, _ in result.validations] == [5, 8]
    """)
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    steps = []
    result = train(resumed, data, RECIPE, folder=tmp_path, progress=lambda done, of, last: steps.append(done))
    assert steps == [9, 10, 11, 12] and same(resumed, whole)
    assert result.losses == expected.losses and result.validations[-1] == expected.validations[-1]
    assert result.validated(5) == first.validated(5) is not None and result.validated(6) is None


def test_a_pause_that_is_past_validates_where_the_run_stands(tmp_path):
    def stop(done, of, last):
        if done == 8:
            raise KeyboardInterrupt

    data = Digits().open(IMAGES)
    with pytest.raises(KeyboardInterrupt):
        train(Classifier(), data, RECIPE, folder=tmp_path, save_steps=6, progress=stop)
    for until in (6, 3):
        result = train(Classifier(), data, RECIPE, folder=tmp_path, until=until)
        assert result.done == 6 and [step for step, _, _ in result.validations] == [6]


def test_kill_9_loses_nothing_before_the_checkpoint(tmp_path):
    program = textwrap.dedent(f"""
        import os, signal, sys, torch
        torch.set_num_threads({torch.get_num_threads()})
        sys.path[:0] = {[os.getcwd(), os.path.dirname(__file__)]!r}
        from pathlib import Path
        from test_train import *
        def die(done, of, last):
            if done == 8: os.kill(os.getpid(), signal.SIGKILL)
        train(Classifier(), Digits().open(IMAGES), RECIPE, folder=Path({str(tmp_path)!r}), save_steps=3, progress=die)
    """)
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    data, whole, resumed = Digits().open(IMAGES), Classifier(), Classifier()
    train(whole, data, RECIPE)
    steps = []
    train(resumed, data, RECIPE, folder=tmp_path, progress=lambda done, of, last: steps.append(done))
    assert steps[0] == 7 and same(resumed, whole)


@pytest.mark.parametrize(
    ("changes", "said"), [({"steps": 24}, "steps was 12, is 24"), ({"seed": 5}, "seed was 0, is 5")]
)
def test_another_recipe_does_not_continue_a_run(tmp_path, changes, said):
    data = Digits().open(IMAGES)
    train(Classifier(), data, RECIPE, folder=tmp_path, save_steps=5)
    with pytest.raises(SpecError, match=said):
        train(Classifier(), data, RECIPE.model_copy(update=changes), folder=tmp_path)


def test_another_model_does_not_continue_a_run(tmp_path):
    data = Digits().open(IMAGES)
    train(Classifier(), data, RECIPE, folder=tmp_path, save_steps=5)
    with pytest.raises(SpecError, match="of another model"):
        train(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), data, RECIPE, folder=tmp_path)


def test_a_damaged_checkpoint_is_refused(tmp_path):
    (tmp_path / checkpoint.NAME).write_bytes(b"not this")
    with pytest.raises(SpecError, match="no checkpoint"):
        train(Classifier(), Digits().open(IMAGES), RECIPE, folder=tmp_path)


def test_a_full_disk_leaves_the_older_checkpoint(tmp_path):
    data = Digits().open(IMAGES)
    train(Classifier(), data, RECIPE, folder=tmp_path, save_steps=5)
    before = (tmp_path / checkpoint.NAME).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(NotSaved, match="cannot be written(.|\n)*goes on from what was saved"):
            train(Classifier(), data, RECIPE, folder=tmp_path, save_steps=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / checkpoint.NAME).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.NAME]


def test_accumulated_batches_equal_a_large_one():
    class Halves:
        interface, fingerprint, bytes_per_target = IMAGES, "", None
        whole = Digits().open(IMAGES)

        def batch(self, step, *, seed, size, length):
            inputs, targets = self.whole.batch(step // 2, seed=seed, size=16)
            half = slice(0, 8) if step % 2 == 0 else slice(8, 16)
            return type(self.whole.batch(0, seed=0, size=1))({"image": inputs["image"][half]}, targets[half])

        def validation(self, **sizes):
            return self.whole.validation(**sizes)

    def model():
        torch.manual_seed(0)
        return nn.Sequential(Rename(), nn.Flatten(), nn.Linear(64, 10))

    class Rename(nn.Module):
        def forward(self, image):
            return image

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = model()

        def forward(self, image):
            return self.body(image)

    one, two = Named(), Named()
    a = train(one, Digits().open(IMAGES), Recipe(steps=5, batch=16))
    b = train(two, Halves(), Recipe(steps=5, batch=8, accumulate=2))
    assert a.losses == pytest.approx(b.losses, abs=1e-6) and a.targets == b.targets


def test_a_loss_that_is_not_a_number_fails_with_its_step():
    class Broken(Classifier):
        def forward(self, image):
            return super().forward(image) * math.inf

    with pytest.raises(TrainingFailed, match="the loss is nan at step 1"):
        train(Broken(), Digits().open(IMAGES), RECIPE)


def test_want_of_memory_is_named():
    class Huge(Classifier):
        def forward(self, image):
            return super().forward(image) + torch.empty(1 << 60)

    with pytest.raises(TrainingFailed, match="out of memory"):
        train(Huge(), Digits().open(IMAGES), RECIPE)


def test_a_missing_device_is_a_users_error():
    with pytest.raises(SpecError, match="device nonsense is not there"):
        train(Classifier(), Digits().open(IMAGES), RECIPE.model_copy(update={"device": "nonsense"}))


def test_only_matrices_that_are_no_embeddings_decay():
    model = nn.ModuleDict({"token": nn.Embedding(9, 4), "norm": nn.LayerNorm(4), "out": nn.Linear(4, 4)})
    decayed, free = _optimizer(model, Recipe()).param_groups
    assert decayed["params"] == [model["out"].weight] and decayed["weight_decay"] == 0.1
    assert len(free["params"]) == 4 and free["weight_decay"] == 0


def test_the_rate_warms_up_and_falls():
    recipe = Recipe(steps=100, learning_rate=1.0)
    assert recipe.rate(0) == pytest.approx(0.1) and recipe.rate(9) == pytest.approx(1)
    assert recipe.rate(99) == pytest.approx(0.1) and recipe.rate(50) < recipe.rate(40)


def test_added_losses_are_trained_but_not_validated():
    class Adding(Classifier):
        def forward(self, image):
            logits = super().forward(image)
            return {"logits": logits, "router.loss": 100 + 0 * logits.sum()} if self.training else logits

    plain, adding = (train(kind(), Digits().open(IMAGES), RECIPE) for kind in (Classifier, Adding))
    assert adding.losses[0] == pytest.approx(plain.losses[0] + 100, abs=1e-3)
    assert adding.validation_loss == plain.validation_loss


def test_text_is_told_in_bits_per_byte(tmp_path):
    class Bigram(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(256, 256)

        def forward(self, tokens):
            return self.embedding(tokens)

    (tmp_path / "a").write_text("abcdefgh" * 500)
    data = Text(path=str(tmp_path / "a")).open(CausalLm(vocab=256, length=32))
    result = train(Bigram(), data, Recipe(steps=40, batch=4, learning_rate=0.3, precision="bfloat16"))
    assert result.bits_per_byte == pytest.approx(result.validation_loss / math.log(2)) and result.bits_per_byte < 1
