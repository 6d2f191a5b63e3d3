"""Synthetic tasks: what is scored can be known; splits do not touch; models learn what they should."""

import math
import random

import numpy as np
import pytest
import torch

import compiler
from archspec import spec as specs
from archspec.errors import SpecError
from archspec.kinds.interface import CausalLm, ImageClassification
from archspec.source import parse
from search.data.batches import Data
from search.data.compression import Compression
from search.data.copying import SelectiveCopying
from search.data.memorisation import Memorisation
from search.data.recall import FuzzyRecall, InContextRecall, NoisyRecall
from search.recipe import Recipe
from search.train import train

INTERFACE = CausalLm(vocab=256, length=512)
TASKS = [
    InContextRecall(),
    InContextRecall(vocab=33, length=51),
    NoisyRecall(),
    NoisyRecall(vocab=24, noise=4, share=0.7, length=90),
    FuzzyRecall(),
    FuzzyRecall(vocab=20, key=2, value=4, length=64),
    SelectiveCopying(),
    SelectiveCopying(vocab=8, copied=5, length=40),
    Compression(),
    Compression(length=65),
    Memorisation(),
    Memorisation(vocab=9, length=45),
]
EACH = pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.kind}-{task.vocab}-{task.length}")


def pairs_seen(tokens, keys, values):
    """Keys and values as runs of tokens, by a reader that knows nothing but which tokens they are made of."""
    found, key, value = [], [], []
    for token in [*tokens, None]:
        if value and token not in values:
            found.append((tuple(key), tuple(value)))
            key, value = [], []
        if token in keys:
            key.append(token)
        elif token in values and key:
            value.append(token)
        else:
            key = []
    return found


def solved(task, tokens):
    """For each place what must be answered, or None where it cannot be known, from the tokens up to it."""
    vocab = task.vocab
    answers = []
    for place in range(len(tokens)):
        before = tokens[: place + 1]
        answers.append(None)
        if task.kind.endswith("recall"):
            usable = {"noisy_recall": vocab - getattr(task, "noise", 0), "fuzzy_recall": vocab - 1}.get(
                task.kind, vocab
            )
            half = usable // 2
            if before[-1] >= usable:
                continue
            *earlier, current = pairs_seen([*before, half], range(half), range(half, usable))
            key, begun = current[0], current[1][:-1]  # the value so far; its last token was added to close the pair
            told = dict(earlier).get(key)
            if told is not None and len(begun) < len(told) and told[: len(begun)] == begun:
                answers[-1] = told[len(begun)]
        elif task.kind == "selective_copying" and vocab - 1 in before[:-1]:
            asked = before.index(vocab - 1)
            answers[-1] = [t for t in before[:asked] if t < vocab - 2][place - asked - 1]
        elif task.kind == "compression" and before[-1] == vocab - 1:
            told = [t for t in before if t != vocab - 1]
            asked = before.count(vocab - 1) - (tokens[0] == vocab - 1)
            answers[-1] = told[asked - 1] if told else None
    return answers


@EACH
def test_a_solver_answers_everything_that_is_scored(task):
    if task.kind == "memorisation":
        pytest.skip("nothing in a sequence tells")
    data = task.open(INTERFACE)
    batches = [data.batch(0, seed=0, size=24, length=None), *data.validation(size=24, length=None, batches=1)]
    for batch in batches:
        for tokens, targets in zip(batch.inputs["tokens"].tolist(), batch.targets.tolist(), strict=True):
            answers = solved(task, tokens)
            scored = [place for place, target in enumerate(targets) if target != -100]
            assert scored and [answers[place] for place in scored] == [targets[place] for place in scored]


def test_facts_are_the_same_in_both_splits_and_no_value_is_twice():
    for task in (Memorisation(), Memorisation(vocab=9, length=45)):
        data = task.open(INTERFACE)
        facts = {}
        for batch in (data.batch(0, seed=0, size=200, length=None), *data.validation(size=50, length=None, batches=2)):
            tokens, targets = batch.inputs["tokens"], batch.targets
            scored = targets != -100
            assert (tokens[scored] == task.vocab - 1).all() and not (tokens[:, :-1] == tokens[:, 1:]).any()
            for key, value in zip(tokens.roll(1, 1)[scored].tolist(), targets[scored].tolist(), strict=True):
                assert facts.setdefault(key, value) == value
        assert len(set(facts.values())) == len(facts) == (task.vocab - 1) // 2


@EACH
def test_a_guess_among_all_possible_answers_is_right_by_chance(task):
    data = task.open(INTERFACE)
    found = torch.cat([b.targets[b.targets != -100] for b in data.validation(size=320, length=None, batches=4)])
    possible = sorted(set(found.tolist()))
    guesses = random.Random(0).choices(possible, k=len(found))
    right = np.mean([guess == target for guess, target in zip(guesses, found.tolist(), strict=True)])
    assert abs(right - task.chance) < 4 * math.sqrt(task.chance / len(found)) + 0.01 * task.chance


@EACH
def test_no_sequence_is_in_both_splits(task):
    data = task.open(INTERFACE)
    length = max(task.least, 8)  # short, so that draws repeat

    def rows(batch):
        return {
            tuple(map(tuple, pair))
            for pair in zip(batch.inputs["tokens"].tolist(), batch.targets.tolist(), strict=True)
        }

    training = set().union(*(rows(data.batch(n, seed=0, size=64, length=length)) for n in range(10)))
    held_out = set().union(*(rows(b) for b in data.validation(size=64, length=length, batches=10)))
    assert len(held_out) > 10 and not training & held_out


def test_a_task_with_too_few_sequences_for_two_splits_is_refused():
    with pytest.raises(SpecError, match="too few sequences"):
        Memorisation(vocab=4, length=2).open(INTERFACE)  # one key: there is one sequence


@EACH
def test_a_batch_depends_on_seed_and_step_alone_and_epochs_see_each_example_once(task):
    small = type(task)(**{**task.model_dump(), "examples": 12})
    first, again = small.open(INTERFACE), small.open(INTERFACE)
    again.batch(3, seed=1, size=4, length=None)
    for one, other in zip(
        first.batch(1, seed=5, size=4, length=None), again.batch(1, seed=5, size=4, length=None), strict=True
    ):
        assert torch.equal(one["tokens"], other["tokens"]) if isinstance(one, dict) else torch.equal(one, other)
    epochs = []
    for epoch in range(2):
        steps = range(3 * epoch, 3 * epoch + 3)
        rows = torch.cat([first.batch(step, seed=5, size=4, length=None).inputs["tokens"] for step in steps]).tolist()
        epochs.append(rows)
    assert sorted(epochs[0]) == sorted(epochs[1]) and epochs[0] != epochs[1]
    assert first.fingerprint == again.fingerprint != task.open(INTERFACE).fingerprint


@pytest.mark.parametrize(
    ("task", "interface", "length", "cause"),
    [
        (InContextRecall(), CausalLm(vocab=15, length=128), None, "has 16 tokens, the interface only 15"),
        (
            InContextRecall(),
            CausalLm(vocab=16, length=100),
            None,
            "sequences of 128 are longer than the interface's 100",
        ),
        (SelectiveCopying(), INTERFACE, 32, "needs sequences of 33 tokens, these have 32"),
        (
            Compression(),
            ImageClassification(image=[8, 8, 1], classes=10),
            None,
            "cannot train a model of interface image",
        ),
    ],
)
def test_a_task_that_does_not_fit_is_refused(task, interface, length, cause):
    with pytest.raises(SpecError, match=cause):
        task.open(interface).batch(0, seed=0, size=1, length=length)


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ("{kind: noisy_recall, vocab: 16}", "of 16 tokens 16 are noise"),
        ("{kind: fuzzy_recall, vocab: 6}", "keys of 2 and values of 3"),
        ("{kind: memorisation, share: 0.1}", "no field 'share'"),
        ("{kind: in_context_recal}", "did you mean in_context_recall"),
    ],
)
def test_wrong_fields_are_refused(fields, cause):
    with pytest.raises(SpecError, match=cause):
        Data.read(parse(f"data: {fields}", "x")["data"], "data", None)


MODEL = """
archspec: 1
name: small
interface: {{kind: causal_lm, vocab: 16, length: 32}}
dims: {{width: 32}}
graph:
  - {{kind: token_embedding, width: width}}
  - {first}
  - {second}
  - rms_norm
  - lm_head
"""
ATTENTION = """{{kind: transformer_layer, norm: rms_norm, mixer: {{kind: attention, heads: 2, position: rope{}}},
  channel: {{kind: mlp, hidden: 64}}}}"""
ALONE = "{kind: residual, norm: rms_norm, body: {kind: mlp, hidden: 64}}"


@pytest.mark.slow
def test_attention_learns_recall_and_a_model_that_mixes_no_tokens_cannot():
    torch.set_num_threads(1)
    accuracy = []
    for first, second in ((ATTENTION.format(", window: 2"), ATTENTION.format("")), (ALONE, ALONE)):
        spec = specs.from_tree(parse(MODEL.format(first=first, second=second), "x"))
        data = InContextRecall(vocab=16, length=32).open(spec.interface)
        recipe = Recipe(steps=300, batch=32, learning_rate=1e-2)
        accuracy.append(train(compiler.compile(spec), data, recipe).validation_accuracy)
    assert accuracy[0] > 0.95 and accuracy[1] < 1.5 * data.task.chance
