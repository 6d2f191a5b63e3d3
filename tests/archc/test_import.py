"""``archc import`` on right and wrong files: one error that names what is wrong, and no output."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import compiler
from archspec import spec
from compiler.checkpoint import INDEX, SINGLE
from tests.archc import checkpoints
from tests.archc.invoking import invoke

Folder = Path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A checkpoint in one file."""
    folder = tmp_path_factory.mktemp("whole")
    checkpoints.llama(folder)
    return folder


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The same weights in several files."""
    folder = tmp_path_factory.mktemp("sharded")
    checkpoints.llama(folder, "40KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    return folder


def test_a_configuration_becomes_a_spec(whole: Folder, tmp_path: Path) -> None:
    invoke("import", whole / "config.json", "-o", tmp_path / "llama.yaml", "--name", "mine")
    found = spec.load(tmp_path / "llama.yaml")
    assert found.name == "mine"
    assert found.full == spec.loads(invoke("import", whole).stdout.replace("name: llama", "name: mine")).full
    said = json.loads(invoke("import", whole, "--json").stdout)
    assert (said["model_type"], said["full"]) == ("llama", found.full)


def test_a_sharded_checkpoint_goes_there_and_back(sharded: Folder, whole: Folder, tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    for file in sharded.iterdir():
        shutil.copy(file, tmp_path / "given")
    (tmp_path / "given" / "tokenizer.json").write_text("{}")
    invoke("import", tmp_path / "given", "-o", tmp_path / "compiled")
    said = json.loads(
        invoke("export", tmp_path / "compiled", "--to", "transformers", "-o", tmp_path / "back", "--json").stdout
    )
    assert said["files"] == ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"]
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back")
    stored = load_file(whole / SINGLE)
    assert back.state_dict().keys() == stored.keys()
    assert all(torch.equal(back.state_dict()[name], value) for name, value in stored.items())


def test_weights_may_be_of_another_type_than_they_are_stored(whole: Folder, tmp_path: Path) -> None:
    invoke("import", whole, "-o", tmp_path / "half", "--dtype", "bfloat16")
    assert {p.dtype for p in compiler.load(tmp_path / "half").parameters()} == {torch.bfloat16}


def test_families_are_listed() -> None:
    assert json.loads(invoke("import", "--families", "--json").stdout)["deepseek_v3"] == "DeepseekV3ForCausalLM"


def config(**changes: object) -> Callable[[Folder], None]:
    def wrong(folder: Folder) -> None:
        found = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps({k: v for k, v in found.items() if v is not None}, indent=1))

    return wrong


def text(content: bytes) -> Callable[[Folder], None]:
    return lambda folder: (folder / "config.json").write_bytes(content) and None


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Folder], None]:
    def wrong(folder: Folder) -> None:
        found = load_file(folder / SINGLE)
        change(found)
        save_file(found, folder / SINGLE)

    return wrong


def cut(folder: Folder) -> None:
    data = (folder / SINGLE).read_bytes()
    (folder / SINGLE).write_bytes(data[: len(data) // 2])


def corrupt(folder: Folder) -> None:
    data = bytearray((folder / SINGLE).read_bytes())
    data[20:60] = b"\xff" * 40
    (folder / SINGLE).write_bytes(data)


def pickled(name: str) -> Callable[[Folder], None]:
    def wrong(folder: Folder) -> None:
        found = load_file(folder / SINGLE)
        (folder / SINGLE).unlink()
        torch.save(found, folder / name)

    return wrong


# What is wrong with the folder; where the error stands; what it says; what its hint says.
WRONG = {
    "unknown family": (config(model_type="lama"), "model_type", "no family is called 'lama'", "did you mean llama"),
    "no family": (config(model_type=None), "model_type", "says no model_type", "config.json of a transformers model"),
    "option": (config(hidden_act="swoosh"), "hidden_act", "no activation is called swoosh", "swish"),
    "scaling": (config(rope_parameters={"rope_type": "magic"}), "rope_parameters", "no rotary scaling is called", ""),
    "misspelt": (config(hiden_act="silu"), "hiden_act", "has no field 'hiden_act'", "did you mean hidden_act"),
    "type": (config(hidden_size="32"), "hidden_size", '"32" is no whole number', ""),
    "does not divide": (config(num_key_value_heads=3), "num_key_value_heads", "cannot be shared by 3", "1, 2 or 4"),
    "huge": (config(hidden_size=10**30), "hidden_size", "too large", ""),
    "negative": (config(num_hidden_layers=-1), "num_hidden_layers", "-1", ""),
    "many layers": (config(num_hidden_layers=5000), "num_hidden_layers", "5,000 layers; at most 4,096", ""),
    "endless": (config(num_hidden_layers=10**9), "num_hidden_layers", "1,000,000,000", ""),
    "empty": (text(b""), "config.json", "the file is empty", "name the config.json"),
    "cut": (text(b'{"model_type": "llama", '), "config.json:1:25", "not JSON", "name the config.json"),
    "list": (text(b"[]"), "config.json", "not a JSON object", "name the config.json"),
    "twice": (text(b'{"model_type": "llama", "model_type": "bert"}'), "config.json", "stands twice", ""),
    "latin": (text(b'{"model_type": "\xe9"}'), "config.json", "not a JSON text file", ""),
    "deep": (text(b"[" * 100_000), "config.json", "not a JSON text file", ""),
    "digits": (text(b'{"model_type": "llama", "hidden_size": ' + b"9" * 5000 + b"}"), "config.json", "too many", ""),
    "missing": (lambda folder: (folder / "config.json").unlink(), "config.json", "there is no such file", ""),
    "missing tensor": (tensors(lambda held: held.pop("model.norm.weight")), "", "no model.norm.weight (32)", "another"),
    "extra tensor": (tensors(lambda held: held.update(more=torch.ones(2))), "", "more is no tensor of", "another"),
    "misshapen tensor": (
        tensors(lambda held: held.update({"model.norm.weight": torch.ones(31)})), "",
        "model.norm.weight is 31; expected 32", "another model",
    ),
    "quantised": (config(quantization_config={"bits": 4}), "quantization_config", '{"bits": 4} cannot be said', "null"),
    "tokenizer": (lambda folder: (folder / "tokenizer.json").mkdir(), "tokenizer.json", "Is a directory", "take it"),
    "strange name": (tensors(lambda held: held.update({"\x1b[1m": torch.ones(2)})), "", '"\\u001b[1m" is no', ""),
    "no layer": (
        tensors(lambda held: held.update({"model.layers.².mlp.up_proj.weight": torch.ones(48, 32)})), "",
        "model.layers.².mlp.up_proj.weight is no tensor of this llama", "",
    ),
    "integers": (
        tensors(lambda held: held.update({"model.norm.weight": torch.ones(32, dtype=torch.int8)})), "",
        "model.norm.weight (int8) is quantised", "dequantize",
    ),
    "truncated": (cut, SINGLE, "bytes", "truncated or damaged"),
    "corrupt": (corrupt, SINGLE, "header cannot be understood", "truncated or damaged"),
    "nothing": (lambda folder: (folder / SINGLE).write_bytes(b""), SINGLE, "0 bytes do not begin", "damaged"),
    "pickle": (pickled("pytorch_model.bin"), "pytorch_model.bin", "a pickle, which can run", "save_pretrained"),
    "disguise": (pickled(SINGLE), SINGLE, "a pickle, which can run any code", "save_pretrained"),
    "no weights": (lambda folder: (folder / SINGLE).unlink(), "", "has no model.safetensors", "-o spec.yaml"),
    "folder": (
        lambda folder: ((folder / SINGLE).unlink(), (folder / SINGLE).mkdir()), "", "has no model.safetensors", "shards"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_checkpoint_is_one_clear_error_and_leaves_nothing(case: str, whole: Folder, tmp_path: Path) -> None:
    wrong, place, cause, hint = WRONG[case]
    shutil.copytree(whole, tmp_path / "given")
    wrong(tmp_path / "given")
    said = invoke("import", tmp_path / "given", "-o", tmp_path / "out", code=2).stderr
    lines = said.splitlines()
    assert len(lines) in (2, 3), said  # a place, a cause, and a way out where there is one
    assert place in lines[0] and cause in lines[1] and hint in (lines[2] if len(lines) > 2 else ""), said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def index(change: Callable[[dict[str, str]], object]) -> Callable[[Folder], None]:
    def wrong(folder: Folder) -> None:
        found = json.loads((folder / INDEX).read_text())
        change(found["weight_map"])
        (folder / INDEX).write_text(json.dumps(found))

    return wrong


SHARD = "model-00002-of-0000"
WRONG_SHARDS = {
    "missing": (lambda folder: next(folder.glob(f"{SHARD}*")).unlink(), SHARD, "this shard is missing"),
    "truncated": (
        lambda folder: next(folder.glob(f"{SHARD}*")).write_bytes(next(folder.glob(f"{SHARD}*")).read_bytes()[:-1]),
        SHARD, "bytes",
    ),
    "lies": (index(lambda files: files.update(more=files["lm_head.weight"])), "model-0000", "has no tensor more"),
    "outside": (index(lambda files: files.update(more="../../etc/passwd")), INDEX, "is no file of this folder"),
    "no text": (index(lambda files: files.update(more=3)), INDEX, "3 is no file of this folder"),
    "not JSON": (lambda folder: (folder / INDEX).write_text("{"), INDEX, "no index of tensors"),
    "long": (index(lambda files: files.update(more="x" * 5000 + ".safetensors")), "xxx", "this shard is missing"),
    "no map": (lambda folder: (folder / INDEX).write_text("{}"), INDEX, "no index of tensors"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_SHARDS)
def test_wrong_shards_are_told_by_name_and_leave_nothing(case: str, sharded: Folder, tmp_path: Path) -> None:
    wrong, place, cause = WRONG_SHARDS[case]
    shutil.copytree(sharded, tmp_path / "given")
    wrong(tmp_path / "given")
    said = invoke("import", tmp_path / "given", "-o", tmp_path / "out", code=2).stderr
    assert place in said.splitlines()[0] and cause in said.splitlines()[1], said
    assert not (tmp_path / "out").exists()


def test_a_misspelt_tensor_is_too_much_and_missing(whole: Folder, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "given")
    tensors(lambda held: held.update({"model.nrm.weight": held.pop("model.norm.weight")}))(tmp_path / "given")
    said = invoke("import", tmp_path / "given", "-o", tmp_path / "out", code=2).stderr
    assert "model.nrm.weight is no tensor of this llama\n  did you mean model.norm.weight?" in said
    assert "the checkpoint has no model.norm.weight (32)" in said


def test_many_wrong_tensors_are_told_in_a_few_lines(whole: Folder, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "given")
    config(hidden_size=64)(tmp_path / "given")
    said = invoke("import", tmp_path / "given", "-o", tmp_path / "out", code=2).stderr
    assert "lm_head.weight is 300 × 32; expected 300 × 64" in said
    assert "and 16 more" in said and len(said.splitlines()) < 20


def test_numbers_that_the_wanted_type_cannot_hold_are_told(whole: Folder, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "given")
    large = torch.tensor([1.0, float("inf"), float("nan"), -7e4] * 8)  # what is infinite already stays so
    tensors(lambda held: held.update({"model.norm.weight": large}))(tmp_path / "given")
    words = ("import", tmp_path / "given", "-o", tmp_path / "out", "--dtype")
    said = invoke(*words, "float16", code=2).stderr
    assert "model.norm.weight holds -7e+04; float16 holds at most 65504\n  a wider dtype, as float32" in said
    assert not (tmp_path / "out").exists()
    invoke(*words, "bfloat16")
    held = compiler.load(tmp_path / "out").get_parameter("norm.weight")
    torch.testing.assert_close(held, large.bfloat16(), rtol=0, atol=0, equal_nan=True, check_stride=False)
    tensors(lambda held: held.update({"model.norm.weight": large.clamp(-6e4, 6e4)}))(tmp_path / "given")
    invoke(*words, "float16")


def test_weights_go_by_the_configuration_beside_them(whole: Folder, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "given")
    other = (tmp_path / "given" / "config.json").rename(tmp_path / "given" / "other.json")
    said = invoke("import", other, "-o", tmp_path / "out", code=2).stderr
    assert "weights are described by the config.json beside them, not by other.json" in said
    invoke("import", other, "-o", tmp_path / "other.yaml")
    assert spec.load(tmp_path / "other.yaml").name == "llama"


@pytest.mark.parametrize("name", ["", " ", "two\nlines", "half \udcff"])
def test_a_name_is_one_line_of_text(name: str, whole: Folder, tmp_path: Path) -> None:
    assert "is no name" in invoke("import", whole, "-o", tmp_path / "a.yaml", "--name", name, code=2).stderr
    assert not (tmp_path / "a.yaml").exists()


def test_weights_may_be_no_numbers(whole: Folder, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "given")
    tensors(lambda held: held.update({"model.norm.weight": torch.full((32,), float("nan"))}))(tmp_path / "given")
    invoke("import", tmp_path / "given", "-o", tmp_path / "out")
    assert compiler.load(tmp_path / "out").get_parameter("norm.weight").isnan().all()


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """No file can have more bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("command", ["import", "export"])
def test_a_full_disk_leaves_what_was_there(command: str, whole: Folder, tmp_path: Path) -> None:
    invoke("import", whole, "-o", tmp_path / "compiled")
    words = {"import": ["import", whole], "export": ["export", tmp_path / "compiled", "--to", "transformers"]}[command]
    invoke(*words, "-o", tmp_path / "out")
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    with small_disk(4096):
        said = [invoke(*words, "-o", tmp_path / name, code=2).stderr for name in ("out", "new")]
    assert all("cannot be written" in text and "make room" in text for text in said)
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before
    assert not (tmp_path / "new").exists()


SLOW = """
import sys, time
import compiler.stored, compiler.weights, compiler.checkpoint
write = compiler.stored.write
def slowly(path, *given):
    write(path, *given)
    print("written", flush=True)
    time.sleep(60)
compiler.weights.write = compiler.checkpoint.write = slowly
from archc.main import app
app()
"""


@pytest.mark.parametrize(("command", "sent"), [("import", signal.SIGINT), ("export", signal.SIGKILL)])
def test_a_command_that_dies_leaves_what_was_there(
    command: str, sent: signal.Signals, whole: Folder, tmp_path: Path
) -> None:
    invoke("import", whole, "-o", tmp_path / "compiled")
    words = {"import": ["import", whole], "export": ["export", tmp_path / "compiled", "--to", "transformers"]}[command]
    invoke(*words, "-o", tmp_path / "out")
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    given = [sys.executable, "-c", SLOW, *map(str, words), "-o", str(tmp_path / "out")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert running.stdout is not None and running.stdout.readline() == "written\n"
    time.sleep(0.1)
    running.send_signal(sent)
    _, said = running.communicate(timeout=20)
    assert running.returncode == (130 if sent == signal.SIGINT else -sent) and "Traceback" not in said
    shown = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir() if not file.name.startswith(".")}
    assert shown == before
    if sent == signal.SIGINT:
        assert {file.name for file in (tmp_path / "out").iterdir()} == before.keys()


def test_what_cannot_be_written_is_told(whole: Folder, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "this is a file, not a folder" in invoke("import", whole, "-o", tmp_path / "file", code=2).stderr
    assert "cannot be written" in invoke("import", whole, "-o", tmp_path / "no" / "llama.yaml", code=2).stderr
    assert "File name too long" in invoke("import", whole, "-o", tmp_path / ("x" * 300), code=2).stderr
    assert "File name too long" in invoke("import", "x" * 300, code=2).stderr


def test_a_spec_is_written_whole_or_not_at_all(whole: Folder, tmp_path: Path) -> None:
    (tmp_path / "llama.yaml").write_text("mine")
    with small_disk(100):
        said = invoke("import", whole, "-o", tmp_path / "llama.yaml", code=2).stderr
    assert "llama.yaml cannot be written: File too large" in said
    assert [file.read_text() for file in tmp_path.iterdir()] == ["mine"]
    (tmp_path / "link.yaml").symlink_to("llama.yaml")
    invoke("import", whole, "-o", tmp_path / "link.yaml")
    assert (tmp_path / "link.yaml").is_symlink() and spec.load(tmp_path / "llama.yaml").name == "llama"
