"""``archc generate``: what a person reads, what a program reads, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaForCausalLM, T5ForConditionalGeneration

import compiler
from archspec import spec
from tests.archc import checkpoints
from tests.archc.invoking import invoke

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
ARCHC = [sys.executable, "-c", "from archc.main import app; app()"]


def tokens(*words: object) -> list[list[int]]:
    return [row["tokens"] for row in json.loads(invoke("generate", *words, "--json").stdout)]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LlamaForCausalLM]:
    place = tmp_path_factory.mktemp("llama")
    model = checkpoints.llama(place / "given")
    invoke("import", place / "given", "-o", place / "compiled")
    return place / "compiled", model


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, T5ForConditionalGeneration]:
    place = tmp_path_factory.mktemp("t5")
    model = checkpoints.t5(place / "given")
    invoke("import", place / "given", "-o", place / "compiled")
    return place / "compiled", model


@torch.no_grad()
def theirs(model: Any, texts: list[str], count: int, *, left: bool) -> list[list[int]]:
    rows = [list(text.encode()) for text in texts]
    longest = max(map(len, rows))
    filled = [[[0] * (longest - len(row)), row][:: 1 if left else -1] for row in rows]
    ids = torch.tensor([a + b for a, b in filled])
    mask = torch.tensor([[0] * (longest - len(r)) + [1] * len(r) if left else [1] * len(r) + [0] * (longest - len(r))
                         for r in rows])  # fmt: skip
    out = model.generate(ids, attention_mask=mask, max_new_tokens=count, do_sample=False, pad_token_id=0)
    return [row[-count:] for row in out.tolist()]


def test_a_ragged_batch_is_that_of_transformers(llama: tuple[Path, LlamaForCausalLM]) -> None:
    folder, model = llama
    texts = ["hello", "a longer text"]
    assert tokens(folder, *texts, "--tokens", 12) == theirs(model, texts, 12, left=True)


def test_a_model_with_a_source_reads_the_text_there(t5: tuple[Path, T5ForConditionalGeneration]) -> None:
    folder, model = t5
    texts = ["hello", "a longer text"]
    wanted = [row[: row.index(1)] if 1 in row else row for row in theirs(model, texts, 12, left=False)]
    assert tokens(folder, *texts, "--tokens", 12) == wanted
    assert len({tuple(row) for row in wanted}) == 2  # the source decides


def test_a_target_begins_as_the_configuration_says(tmp_path: Path) -> None:
    model = checkpoints.mbart(tmp_path / "given")
    invoke("import", tmp_path / "given", "-o", tmp_path / "compiled")
    texts = ["hello", "a longer text"]
    wanted = theirs(model, texts, 8, left=False)
    assert {row[0] for row in wanted} == {7}  # forced, and so no token that was generated
    assert tokens(tmp_path / "compiled", *texts, "--tokens", 7) == [row[1:] for row in wanted]


def test_what_was_trained_on_bytes_goes_on_from_the_last_one(tmp_path: Path) -> None:
    loaded = spec.load(Path(__file__).parents[2] / "examples" / "seq2seq.yaml")
    model = compiler.compile(loaded)
    compiler.save(model, tmp_path / "model")
    source = {"source": torch.tensor([list(b"hell")])}
    assert tokens(tmp_path / "model", "hello", "--tokens", 5) == compiler.generate(
        model, [list(b"o")], tokens=5, source=source
    )
    said = invoke("generate", tmp_path / "model", "a", "longer", code=2).stderr
    assert "has no tokens" in said  # one byte is the target's, and leaves no source
    said = invoke("generate", tmp_path / "model", "ab", "longer", code=2).stderr
    assert "the source of tiny-seq2seq has no padding" in said


def test_text_is_streamed_after_the_prompt(llama: tuple[Path, LlamaForCausalLM]) -> None:
    folder, _ = llama
    shown = invoke("generate", folder, "hello", "--tokens", 8).stdout
    text = json.loads(invoke("generate", folder, "hello", "--tokens", 8, "--json").stdout)[0]["text"]
    assert shown == f"hello{text}\n"
    assert "came without a tokenizer.json" in invoke("generate", folder, "hello", "--tokens", 1).stderr
    both = invoke("generate", folder, "hello", "hello", "--tokens", 8).stdout
    assert both == f"hello{text}\n\n" * 2


def test_draws_are_those_of_their_seed(llama: tuple[Path, LlamaForCausalLM]) -> None:
    how = (llama[0], "hello", "--tokens", 8, "--temperature", 2, "--top-k", 50, "--top-p", 0.95)
    assert tokens(*how, "--seed", 1) == tokens(*how, "--seed", 1) != tokens(*how, "--seed", 2)


def test_as_many_tokens_are_added_as_the_model_reads(llama: tuple[Path, LlamaForCausalLM]) -> None:
    assert [len(row) for row in tokens(llama[0], "x" * 60)] == [4]
    said = invoke("generate", llama[0], "x" * 60, "--tokens", 5, code=2).stderr
    assert "60 tokens and 5 more; this model reads at most 64\n  --tokens 4" in said
    assert "a shorter" in invoke("generate", llama[0], "x" * 64, code=2).stderr
    assert "65 tokens; this model reads at most 64" in invoke("generate", llama[0], "x" * 65, code=2).stderr


def with_tokenizer(folder: Path, place: Path, size: int) -> Path:
    """A copy of a model with a tokenizer of so many tokens."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator([" ".join(f"word{n}" for n in range(300))], trainer)
    compiler.save(compiler.load(folder), place)
    made.save(str(place / "tokenizer.json"))
    return place


def test_a_tokenizer_turns_text_into_tokens(llama: tuple[Path, LlamaForCausalLM], tmp_path: Path) -> None:
    folder = with_tokenizer(llama[0], tmp_path / "model", 300)
    known = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = known.encode("word1 word2").ids
    assert len(ids) < len("word1 word2")
    result = invoke("generate", folder, "word1 word2", "--tokens", 6, "--json")
    row = json.loads(result.stdout)[0]
    assert not result.stderr
    assert row["tokens"] == compiler.generate(compiler.load(folder), [ids], tokens=6)[0]
    assert row["text"] == known.decode(row["tokens"])


def test_a_word_begins_with_a_space_behind_another(llama: tuple[Path, LlamaForCausalLM], tmp_path: Path) -> None:
    shutil.copytree(llama[0], tmp_path / "model")
    words = Tokenizer(models.WordLevel({f"\u2581w{n}": n for n in range(300)}, unk_token="?"))
    words.pre_tokenizer, words.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    words.save(str(tmp_path / "model" / "tokenizer.json"))
    how = (tmp_path / "model", "w1 w2", "--tokens", 3)
    row = json.loads(invoke("generate", *how, "--json").stdout)[0]
    assert row["text"] == "".join(f" w{token}" for token in row["tokens"])
    assert invoke("generate", *how).stdout == f"w1 w2{row['text']}\n"


def test_a_tokenizer_of_another_model_is_told(llama: tuple[Path, LlamaForCausalLM], tmp_path: Path) -> None:
    folder = with_tokenizer(llama[0], tmp_path / "model", 500)
    known = Tokenizer.from_file(str(folder / "tokenizer.json"))
    rare = next(word for word in map("word{}".format, range(300)) if max(known.encode(word).ids) >= 300)
    said = invoke("generate", folder, rare, code=2).stderr
    assert "the model knows 300\n  tokenizer.json belongs to another model" in said
    (folder / "tokenizer.json").write_text("{")
    assert "tokenizer.json cannot be read" in invoke("generate", folder, "a", code=2).stderr


def test_what_cannot_go_on_is_told(tmp_path: Path, llama: tuple[Path, LlamaForCausalLM]) -> None:
    checkpoints.bert(tmp_path / "given")
    invoke("import", tmp_path / "given", "-o", tmp_path / "bert")
    result = invoke("generate", tmp_path / "bert", "hi", code=2)
    assert "bert is masked_lm; causal_lm and seq2seq_lm go on with text" in result.stderr
    assert not result.stdout
    assert "the prompt '' has no tokens" in invoke("generate", llama[0], "", code=2).stderr
    assert "there is no such folder" in invoke("generate", tmp_path / "no", "hi", code=2).stderr
    small = compiler.compile(spec.loads(
        "archspec: 1\nname: small\ninterface: {kind: causal_lm, vocab: 16, length: 8}\n"
        "graph: [{kind: token_embedding, width: 8}, lm_head]"))  # fmt: skip
    compiler.save(small, tmp_path / "small")
    said = invoke("generate", tmp_path / "small", "hi", code=2).stderr
    assert "small has 16 tokens and no tokenizer.json; bytes need 256" in said


@pytest.mark.parametrize("value", ["x", [1, "a"], True, 10**30, 1.5, {"a": 1}, [[1]], [None]])
@pytest.mark.parametrize("key", ["eos_token_id", "pad_token_id", "decoder_start_token_id"])
def test_what_is_no_token_is_told_by_its_field(
    t5: tuple[Path, T5ForConditionalGeneration], tmp_path: Path, key: str, value: object
) -> None:
    said = invoke("generate", changed(t5[0], tmp_path / "model", **{key: value}), "hi", code=2).stderr
    assert f"generation_config.json\n  {key} is {json.dumps(value)}, no token" in said


def changed(folder: Path, place: Path, **fields: object) -> Path:
    """A copy of a model with other settings of generation."""
    shutil.copytree(folder, place)
    found = json.loads((place / "generation_config.json").read_text())
    (place / "generation_config.json").write_text(json.dumps(found | fields))
    return place


def test_a_token_that_the_model_does_not_know_begins_no_text(
    t5: tuple[Path, T5ForConditionalGeneration], tmp_path: Path
) -> None:
    how = ("hi", "hello", "--tokens", 3)
    said = invoke("generate", changed(t5[0], tmp_path / "model", decoder_start_token_id=300), *how, code=2).stderr
    assert "every target begins with token 300; the model knows 300" in said
    wanted = tokens(t5[0], *how)
    assert tokens(changed(t5[0], tmp_path / "padded", pad_token_id=-1), *how) == wanted  # padding is not read
    assert tokens(changed(t5[0], tmp_path / "far", pad_token_id=300), *how) == wanted


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"])
def test_damaged_settings_are_told(llama: tuple[Path, LlamaForCausalLM], tmp_path: Path, content: bytes) -> None:
    shutil.copytree(llama[0], tmp_path / "model")
    (tmp_path / "model" / "generation_config.json").write_bytes(content)
    said = invoke("generate", tmp_path / "model", "hi", code=2).stderr
    assert said.startswith("generation_config.json") and "fetch it again" in said


def test_draws_at_the_edge_of_their_options(llama: tuple[Path, LlamaForCausalLM]) -> None:
    how = (llama[0], "hello", "--tokens", 4)
    for coldest in (1e-40, 1e-320):
        assert tokens(*how, "--temperature", coldest) == tokens(*how)
    assert len(tokens(*how, "--temperature", "inf", "--top-k", 10**20, "--seed", 2**63 - 1)[0]) == 4
    assert "--top-p 0 leaves no token" in invoke("generate", *how, "--top-p", 0, code=2).stderr
    for option, value in (("--seed", 2**63), ("--seed", -1), ("--temperature", "nan"), ("--tokens", 0)):
        assert f"Invalid value for '{option}'" in invoke("generate", *how, option, value, code=2).stderr
    assert "this model reads at most 64" in invoke("generate", *how[:2], "--tokens", 10**30, code=2).stderr


@pytest.mark.parametrize("how", [(), ("--temperature", 1), ("--int8",)])
def test_logits_that_are_no_numbers_are_told(
    how: tuple[object, ...], llama: tuple[Path, LlamaForCausalLM], tmp_path: Path
) -> None:
    model = compiler.load(llama[0])
    torch.nn.init.constant_(model.get_parameter("norm.weight"), float("nan"))
    compiler.save(model, tmp_path / "model")
    assert "logits are no numbers" in invoke("generate", tmp_path / "model", "hi", *how, code=2).stderr


def test_a_prompt_is_text_that_the_tokenizer_knows(llama: tuple[Path, LlamaForCausalLM], tmp_path: Path) -> None:
    assert "the prompt 'hi\\udcff' is not UTF-8" in invoke("generate", llama[0], "hi\udcff", code=2).stderr
    shutil.copytree(llama[0], tmp_path / "model")
    words = {"type": "WordLevel", "vocab": {"hi": 5}, "unk_token": "?"}
    (tmp_path / "model" / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": words}))
    assert len(tokens(tmp_path / "model", "hi", "--tokens", 2)[0]) == 2
    assert "the prompt 'yo' has no tokens: " in invoke("generate", tmp_path / "model", "yo", code=2).stderr


def test_ctrl_c_ends_the_line(llama: tuple[Path, LlamaForCausalLM]) -> None:
    slow = """
import sys, time, compiler
g = sys.modules["compiler.generate"]
pick = g.pick
def slowly(*given):
    time.sleep(0.2)
    return pick(*given)
g.pick = slowly
from archc.main import app
app()
"""
    given = [sys.executable, "-c", slow, "generate", str(llama[0]), "hello", "--tokens", "50"]
    running = subprocess.Popen(given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT)
    assert running.stdout is not None
    first = os.read(running.stdout.fileno(), 100)
    time.sleep(0.5)
    running.send_signal(signal.SIGINT)
    rest, said = running.communicate(timeout=20)
    assert (first + rest).startswith(b"hello") and rest.endswith(b"\n")
    assert running.returncode == 130 and b"Traceback" not in said


def test_a_reader_that_leaves_is_no_error_of_the_program(llama: tuple[Path, LlamaForCausalLM]) -> None:
    command = " ".join([f"'{word}'" for word in [*ARCHC, "generate", str(llama[0]), "hello"]])
    words = ["bash", "-c", f"{command} | head -c 3"]
    found = subprocess.run(words, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert found.stdout == "hel" and "Traceback" not in found.stderr
