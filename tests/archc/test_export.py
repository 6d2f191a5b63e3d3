"""``archc export`` on right and wrong folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import compiler
from compiler.checkpoint import INDEX, SINGLE
from compiler.weights import CONFIG
from tests.archc import checkpoints
from tests.archc.invoking import invoke

TO = ("--to", "transformers", "-o")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("llama")
    checkpoints.llama(place / "given")
    invoke("import", place / "given", "-o", place / "compiled")
    return place / "compiled"


def told(model: Path, out: Path) -> str:
    """The error of an export that leaves nothing."""
    before = sorted(out.rglob("*"))
    said = invoke("export", model, *TO, out, code=2).stderr
    assert sorted(out.rglob("*")) == before
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "the file is empty"),
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"\xff", "not a JSON text file"),
        (b"[" * 100_000, "not a JSON text file"),
        (b'{"model_type": "llama", "hidden_size": ' + b"9" * 5000 + b"}", "too many digits"),
        (b'{"model_type": "llama", "model_type": "bert"}', "'model_type' stands twice"),
        (b'{"model_type": "lama"}', "did you mean llama"),
        (b'{"model_type": "llama", "hidden_size": "32"}', '"32" is no whole number'),
    ],
)
def test_a_damaged_configuration_is_told(compiled: Path, tmp_path: Path, content: bytes, cause: str) -> None:
    shutil.copytree(compiled, tmp_path / "model")
    (tmp_path / "model" / CONFIG).write_bytes(content)
    assert cause in told(tmp_path / "model", tmp_path / "out")


@pytest.mark.parametrize("name", ["spec.yaml", "weights.safetensors", CONFIG])
def test_a_folder_is_no_file_of_a_model(compiled: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(compiled, tmp_path / "model")
    (tmp_path / "model" / name).unlink()
    if name != CONFIG:
        assert "there is no such file" in told(tmp_path / "model", tmp_path / "out")
    (tmp_path / "model" / name).mkdir()
    said = told(tmp_path / "model", tmp_path / "out")
    assert name in said and ("Is a directory" in said or "this is a folder" in said)


def test_what_is_no_compiled_model_is_not_exported(compiled: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "there is no such file" in told(tmp_path / "empty", tmp_path / "out")
    assert "there is no such folder" in told(tmp_path / "no", tmp_path / "out")
    assert "there is no such folder" in told(compiled / "spec.yaml", tmp_path / "out")
    assert "Invalid value for '--to'" in invoke("export", compiled, "--to", "onnx", "-o", tmp_path, code=2).stderr


@pytest.mark.parametrize("name", [SINGLE, INDEX, "tokenizer.json"])
def test_a_folder_in_the_way_is_told_before_anything_is_written(compiled: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "out" / name).mkdir(parents=True)
    said = told(compiled, tmp_path / "out")
    assert f"{name}\n  cannot be written: this is a folder, not a file" in said


def test_a_file_in_the_way_stays(compiled: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "this is a file, not a folder" in told(compiled, tmp_path / "file")
    assert "Not a directory" in told(compiled, tmp_path / "file" / "out")
    assert (tmp_path / "file").read_text() == "mine"


def test_what_tells_of_another_model_is_replaced_and_the_rest_stays(compiled: Path, tmp_path: Path) -> None:
    for name in (INDEX, "tokenizer.json", "note.txt"):
        (tmp_path / name).write_text("another's")
    files = json.loads(invoke("export", compiled, *TO, tmp_path, "--json").stdout)["files"]
    assert files == [CONFIG, "generation_config.json", SINGLE]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([*files, "note.txt"])


def test_a_model_may_be_exported_beside_itself(compiled: Path, tmp_path: Path) -> None:
    shutil.copytree(compiled, tmp_path / "model")
    invoke("export", tmp_path / "model", *TO, tmp_path / "model")
    assert compiler.load(tmp_path / "model").spec.full == compiler.load(compiled).spec.full  # type: ignore[union-attr]
    assert compiler.import_checkpoint(tmp_path / "model").spec.full  # type: ignore[union-attr]
