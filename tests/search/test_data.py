"""Data sets: batches are functions of (seed, step), splits do not touch, and bad data is refused in one sentence."""

import pytest
import torch

from archspec.errors import SpecError
from archspec.kinds.interface import CausalLm, ImageClassification, MaskedLm, Seq2SeqLm
from search.data.batches import Data, DataSet
from search.data.copying import SelectiveCopying
from search.data.digits import Digits
from search.data.text import MASK, Text, TextSet

CAUSAL = CausalLm(vocab=256, length=64)
MASKED = MaskedLm(vocab=257, length=64)
IMAGES = ImageClassification(image=[8, 8, 1], classes=10)


@pytest.fixture
def folder(tmp_path):
    for number in range(40):
        (tmp_path / f"{number}.txt").write_text(f"file {number} says {number * number}. " * 30)
    return tmp_path


def test_a_batch_depends_on_seed_and_step_alone(folder):
    first, again = (Text(path=str(folder)).open(CAUSAL) for _ in range(2))
    again.batch(0, seed=3, size=4, length=16)
    a, b = (data.batch(7, seed=3, size=4, length=16) for data in (first, again))
    assert torch.equal(a.inputs["tokens"], b.inputs["tokens"])
    assert not torch.equal(a.inputs["tokens"], first.batch(8, seed=3, size=4, length=16).inputs["tokens"])
    assert not torch.equal(a.inputs["tokens"], first.batch(7, seed=4, size=4, length=16).inputs["tokens"])


def test_causal_targets_are_the_next_bytes(folder):
    batch = Text(path=str(folder)).open(CAUSAL).batch(0, seed=0, size=8, length=32)
    assert torch.equal(batch.inputs["tokens"][:, 1:], batch.targets[:, :-1])
    assert batch.targets.shape == (8, 32)


def test_a_target_goes_on_from_its_source(folder):
    batch = (
        Text(path=str(folder))
        .open(Seq2SeqLm(vocab=256, length=20, source_length=10))
        .batch(0, seed=0, size=4, length=16)
    )
    plain = Text(path=str(folder)).open(CAUSAL).batch(0, seed=0, size=4, length=26)
    assert [batch.inputs[name].shape[1] for name in ("source", "target")] == [10, 16]
    assert torch.equal(torch.cat([batch.inputs["source"], batch.inputs["target"]], 1), plain.inputs["tokens"])
    assert torch.equal(batch.targets, plain.targets[:, 10:])


def test_masked_targets_are_the_original_bytes(folder):
    plain = Text(path=str(folder)).open(CAUSAL).batch(5, seed=1, size=8, length=64).inputs["tokens"]
    batch = Text(path=str(folder)).open(MASKED).batch(5, seed=1, size=8, length=64)
    learned = batch.targets != -100
    assert torch.equal(batch.targets[learned], plain[learned])
    assert torch.equal(batch.inputs["tokens"][~learned], plain[~learned])
    assert 0.05 < learned.float().mean() < 0.3
    assert (batch.inputs["tokens"] == MASK).any()


def test_training_and_validation_files_are_apart(folder):
    training, held_out = Text(path=str(folder), validation=0.3)._read()
    names = [{line.split(b" says")[0] for line in part.split(b"file")[1:]} for part in (training, held_out)]
    assert names[0] and names[1] and not names[0] & names[1]


def test_copies_of_a_file_are_read_once(folder):
    for number in range(40):
        (folder / f"copy{number}.txt").write_bytes((folder / f"{number}.txt").read_bytes())
    training, held_out = Text(path=str(folder))._read()
    assert (training + held_out).count(b"file 7 says 49. ") == 30


def test_the_standard_library_is_there_without_a_path():
    data = Text(megabytes=0.5).open(CAUSAL)
    text = bytes(data.batch(0, seed=0, size=64, length=64).inputs["tokens"].flatten().tolist())
    assert b"self" in text or b"import" in text or b"def " in text
    assert data.fingerprint == Text(megabytes=0.5).open(CAUSAL).fingerprint


def test_one_file_is_split_by_place(tmp_path):
    (tmp_path / "a.txt").write_bytes(bytes(range(1, 201)))
    training, held_out = Text(path=str(tmp_path / "a.txt"), validation=0.25)._read()
    assert training + held_out == bytes(range(1, 201)) and len(held_out) == 50


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (None, "no file or folder"),
        (b"", "too little text"),
        (b"ab\0cd", "zero bytes"),
        (b"abc" * 9, "sequences have 64"),
    ],
)
def test_text_that_cannot_be_read_is_refused(tmp_path, content, cause):
    path = tmp_path / "text"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpecError, match=cause):
        Text(path=str(path)).open(CAUSAL).batch(0, seed=0, size=1, length=64)


def test_a_folder_without_text_is_refused(tmp_path):
    (tmp_path / "binary").write_bytes(b"\0" * 100)
    with pytest.raises(SpecError, match="too little text"):
        Text(path=str(tmp_path)).open(CAUSAL)


@pytest.mark.parametrize(
    ("data", "interface", "cause"),
    [
        (Text(), CausalLm(vocab=100, length=8), "only 100 tokens"),
        (Text(), MaskedLm(vocab=256, length=8), "256 bytes and a mask"),
        (Text(), IMAGES, "cannot train a model of interface image_classification"),
        (Digits(), CAUSAL, "cannot train a model of interface causal_lm"),
        (Digits(), ImageClassification(image=[32, 32, 3], classes=10), "32 x 32 x 3"),
        (Digits(), ImageClassification(image=[8, 8, 1], classes=2), "has 2 classes"),
    ],
)
def test_data_that_does_not_fit_the_interface_is_refused(data, interface, cause):
    with pytest.raises(SpecError, match=cause):
        data.open(interface)


def test_digits_are_seen_once_an_epoch_and_held_out_ones_never():
    data = Digits().open(IMAGES)
    training = torch.cat([data.batch(step, seed=0, size=32).inputs["image"] for step in range(44)]).flatten(1)
    held_out = torch.cat([b.inputs["image"] for b in data.validation(size=100, batches=9)]).flatten(1)
    assert len(held_out) == 359 and training.min() == 0 and training.max() == 1
    assert len(torch.unique(training, dim=0)) >= 1405  # of 1,408; the data set has a few twins
    assert (torch.cdist(held_out, training).min(1).values == 0).float().mean() < 0.01


def test_a_part_has_its_share_of_the_training_split_and_all_of_validation(folder):
    for whole, count in ((Digits().open(IMAGES), 359), (SelectiveCopying(examples=512, length=64).open(CAUSAL), None)):
        name = next(iter(whole.batch(0, seed=0, size=1, length=None).inputs))
        part = whole.part(0.25)
        epoch = 359 if count else 128

        def seen(data, start, name=name, epoch=epoch):
            steps = range(start, start + epoch)
            rows = [data.batch(step, seed=1, size=1, length=None).inputs[name] for step in steps]
            return torch.unique(torch.cat(rows).flatten(1), dim=0)

        first, second, all_of_it = seen(part, 0), seen(part, epoch), seen(whole, 0)
        same = (torch.cdist(second.float(), first.float()).min(1).values == 0).float().mean()
        assert same > 0.9 > (torch.cdist(all_of_it.float(), first.float()).min(1).values == 0).float().mean()
        of_part, of_whole = (next(data.validation(size=8, length=None, batches=1)) for data in (part, whole))
        assert torch.equal(of_part.targets, of_whole.targets)
    text = Text(path=str(folder)).open(CAUSAL)
    some = text.part(0.1)
    assert len(some._training) == -(-len(text._training) // 10) and some.fingerprint == text.fingerprint


def test_data_that_cannot_be_parted_says_so():
    class Endless(TextSet):
        part = DataSet.part

    with pytest.raises(SpecError, match="cannot be parted"):
        Endless(CAUSAL, b"a" * 99, b"b" * 99).part(0.5)


def test_kinds_are_read_with_their_place():
    with pytest.raises(SpecError, match="did you mean text"):
        Data.read("txt", "data", None)
