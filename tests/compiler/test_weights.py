"""A saved model comes back bit for bit, or one error says why it does not."""

import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from archspec.canonical import text
from archspec.errors import SpecError
from archspec.spec import Spec, load, loads
from compiler.model import compile
from compiler.weights import load as load_model
from compiler.weights import save

TINY = Path(__file__).parents[2] / "examples" / "tiny.yaml"


def tiny(**changes: object) -> Spec:
    return load(TINY, set={"dims.width": 32, "graph.layers.times": 2, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(compile(tiny()), tmp_path / "a" / "model")
    return tmp_path / "a" / "model"


def test_round_trip_is_bit_exact(folder: Path) -> None:
    model, again = compile(tiny()), load_model(folder)
    tokens = torch.randint(0, 256, (2, 9))
    assert torch.equal(model(tokens), again(tokens))
    assert list(model.state_dict()) == list(again.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_the_saved_spec_is_the_same_spec(folder: Path) -> None:
    assert load(folder / "spec.yaml").full == tiny().full


def test_ties_stay_ties(tmp_path: Path) -> None:
    model = compile(tiny(**{"graph.lm_head.tied": True}))
    save(model, tmp_path)
    assert set(load_file(tmp_path / "weights.safetensors")) == set(dict(model.named_parameters()))
    again = load_model(tmp_path)
    assert again.lm_head.weight is again.token_embedding.weight
    assert sum(p.numel() for p in again.parameters()) == sum(p.numel() for p in model.parameters())


def test_dtype_is_that_of_the_file_unless_said(tmp_path: Path) -> None:
    save(compile(tiny(), dtype=torch.bfloat16), tmp_path)
    assert {p.dtype for p in load_model(tmp_path).parameters()} == {torch.bfloat16}
    assert {p.dtype for p in load_model(tmp_path, dtype=torch.float64).parameters()} == {torch.float64}


def test_missing_extra_and_misshapen_tensors_are_named_at_once(folder: Path) -> None:
    tensors = load_file(folder / "weights.safetensors")
    del tensors["rms_norm.weight"]
    tensors["stray"] = torch.zeros(1)
    tensors["lm_head.weight"] = torch.zeros(256, 31)
    save_file(tensors, folder / "weights.safetensors")
    with pytest.raises(SpecError) as refused:
        load_model(folder)
    causes = [problem.cause for problem in refused.value.problems]
    assert causes == [
        "the file has no rms_norm.weight",
        "the file has besides stray",
        "lm_head.weight is 256 × 31 in the file and 256 × 32 in the spec",
    ]


def test_what_is_no_saved_model_is_refused(folder: Path) -> None:
    def cause() -> str:
        with pytest.raises(SpecError) as refused:
            load_model(folder)
        return refused.value.problems[0].cause

    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "cannot be read" in cause()
    weights.write_text("none")
    assert "cannot be read" in cause()
    weights.unlink()
    assert "no such file" in cause()
    (folder / "spec.yaml").unlink()
    assert "no such file" in cause()


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.float8_e4m3fn])
def test_weights_of_no_number_type_are_refused(folder: Path, dtype: torch.dtype) -> None:
    tensors = load_file(folder / "weights.safetensors")
    save_file(tensors | {"rms_norm.weight": torch.ones(32).to(dtype)}, folder / "weights.safetensors")
    kind = str(dtype).removeprefix("torch.")
    with pytest.raises(SpecError, match=f"rms_norm.weight is {kind} in the file and float32 in the model"):
        load_model(folder)


@pytest.mark.parametrize("ties", ["{", "[]", "null", '{"a": ["b"]}', "[" * 100_000])
def test_damaged_ties_are_refused(folder: Path, ties: str) -> None:
    save_file(load_file(folder / "weights.safetensors"), folder / "weights.safetensors", {"ties": ties})
    with pytest.raises(SpecError, match="its ties are no names of tensors"):
        load_model(folder)


def test_a_file_that_goes_along_is_read_or_told(folder: Path) -> None:
    (folder / "tokenizer.json").mkdir()
    with pytest.raises(SpecError, match=r"tokenizer\.json\n  cannot be read: Is a directory"):
        load_model(folder)


def test_a_full_disk_leaves_the_older_files(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(SpecError, match="cannot be written: .*too large"):
            save(compile(tiny(), seed=1), folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_place_that_cannot_be_a_folder_is_refused(folder: Path) -> None:
    with pytest.raises(SpecError, match="cannot be written"):
        save(compile(tiny()), folder / "spec.yaml")


def test_a_model_without_values_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="meta device"):
        save(compile(tiny(), device="meta"), tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("name", ["1e5", "0o17", "on", "12", "~", "a: b", "é"])
def test_words_that_look_like_something_else_stay_words(name: str) -> None:
    source = f"""
        archspec: 1
        name: "{name}"
        interface: {{kind: causal_lm, vocab: 8, length: 8}}
        graph: [{{kind: token_embedding, width: 4}}, lm_head]
        """
    spec = loads(source)
    assert spec.name == name
    again = loads(text(spec.canonical()))
    assert (again.name, again.full) == (spec.name, spec.full)
