"""The commands on right input: what a person and what a program may read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from archspec import spec
from search import memory
from tests.archc.invoking import invoke

ROOT = Path(__file__).parents[2]
TINY = ROOT / "examples" / "tiny.yaml"


def read(*words: object) -> Any:
    return json.loads(invoke(*words, "--json").stdout)


def test_check_tells_what_a_spec_is() -> None:
    found = read("check", TINY)
    loaded = spec.load(TINY)
    assert (found["ok"], found["name"], found["interface"], found["layers"]) == (True, "tiny", "causal_lm", 4)
    assert (found["structure"], found["full"]) == (loaded.structure, loaded.full)
    line = invoke("check", TINY).stdout
    assert line.count("\n") == 1
    assert loaded.structure[:8] in line


def test_check_reads_spaces_and_studies() -> None:
    space = read("check", ROOT / "spaces" / "library" / "language_model.yaml")
    assert (space["kind"], space["accepted"] > 0.5) == ("space", True)
    study = read("check", ROOT / "examples" / "studies" / "demo.yaml")
    assert (study["kind"], study["space"]) == ("study", "language_model")


def test_check_of_several_files_goes_on_after_a_wrong_one(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("archspec: 1\n")
    lines = invoke("check", wrong, TINY, "--json", code=2).stdout.splitlines()
    first, second = map(json.loads, lines)
    assert (first["ok"], second["ok"]) == (False, True)
    assert first["problems"][0]["line"] == 1


def test_set_changes_a_value() -> None:
    assert read("check", TINY, "--set", "graph.layers.times=7")["layers"] == 7
    mixer = "blocks.layer.mixer={kind: attention, heads: 2}"
    assert read("check", TINY, "--set", mixer)["full"] != spec.load(TINY).full


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("nothing", "--set:1:1"),
        ("=3", "--set:1:1"),
        ("graph.layrs.times=3", "--set:1:19  graph.layrs.times"),
        ("blocks.layer.mixer={kind: attention, heads: 3}", "--set:1:45  blocks.layer.mixer.heads"),
        ("graph.layers.times=x", "--set:1:20  graph[1].times"),
    ],
)
def test_a_wrong_set_is_told_with_its_place(text: str, place: str) -> None:
    assert invoke("check", TINY, "--set", text, code=2).stderr.startswith(place + "\n")


def test_show_counts_the_parameters_of_the_compiled_model() -> None:
    import compiler

    model = compiler.compile(spec.load(TINY), device="meta")
    total = sum(parameter.numel() for parameter in model.parameters())
    text = invoke("show", TINY).stdout
    assert f"{total:,} parameters" in text
    assert "× 4" in text
    lines = read("show", TINY)
    assert sum(line["parameters"] for line in lines if line["depth"] == 0) == total


def test_show_canonical_is_a_spec_of_the_same_hashes(tmp_path: Path) -> None:
    file = tmp_path / "canonical.yaml"
    invoke("show", TINY, "--canonical", "-o", file)
    assert spec.load(file).full == spec.load(TINY).full


def test_show_code_prints_each_distinct_block_once() -> None:
    code = invoke("show", TINY, "--code").stdout
    assert code.count("def forward") == 2


def test_show_takes_one_form() -> None:
    assert "one of" in invoke("show", TINY, "--canonical", "--code", code=2).output


def test_files_that_cannot_be_written_are_the_users_error(tmp_path: Path) -> None:
    assert "cannot be written" in invoke("show", TINY, "-o", tmp_path / "no" / "file", code=2).stderr


def test_cost_is_an_object_of_plain_numbers() -> None:
    found = read("cost", TINY, "--device", "l4", "--batch", 2, "--length", 64)
    assert found["schema"] == 2
    assert found["flops"]["forward"] == 2 * found["macs"]["forward"]
    assert found["assumptions"]["batch"] == 2
    text = invoke("cost", TINY, "--device", "l4").stdout
    assert "layers.0–3" in text
    assert f"{found['parameters']['total']:,}" in text


def test_cost_lists_devices() -> None:
    assert {"l4", "h100_sxm", "local"} <= set(read("cost", "--devices"))
    assert "NVIDIA L4" in invoke("cost", "--devices").stdout
    invoke("cost", code=2)


def test_compile_writes_a_model_that_loads(tmp_path: Path) -> None:
    import compiler

    found = read("compile", TINY, "-o", tmp_path / "model", "--seed", 3)
    model = compiler.load(tmp_path / "model")
    assert sum(parameter.numel() for parameter in model.parameters()) == found["parameters"]


def test_compile_refuses_what_does_not_fit_before_it_allocates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device="cpu": 1_000_000)
    told = invoke("compile", TINY, "-o", tmp_path / "model", code=2).stderr
    assert "3.2" in told
    assert "1 MB" in told
    assert not (tmp_path / "model").exists()


def test_available_memory_is_some_of_the_machine() -> None:
    there = memory.available()
    assert there is None or 0 < there < 2**50
    assert [memory.shown(number) for number in (12, 2048, 3.5e9)] == ["12 B", "2.048 kB", "3.5 GB"]


def test_train_resumes_and_refuses_another_recipe(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog\n" * 200)
    words = (
        "train",
        TINY,
        "--data",
        text,
        "--batch",
        2,
        "--length",
        16,
        "-o",
        tmp_path / "run",
        "--set",
        "dims.width=32",
    )
    first = read(*words, "--steps", 2)
    assert math.isfinite(first["validation_loss"])
    assert read(*words, "--steps", 2)["losses"] == first["losses"]
    assert "another training run" in invoke(*words, "--steps", 3, code=2).stderr


def test_train_tells_what_is_wrong_with_its_options(tmp_path: Path) -> None:
    common = ("train", TINY, "-o", tmp_path / "run")
    assert "there is no data called 'books'" in invoke(*common, "--data", "books", code=2).stderr
    assert "digits fit image_classification" in invoke(*common, "--data", "digits", code=2).stderr
    assert "did you mean steps?" in invoke(*common, "--recipe", "{stepz: 3}", code=2).stderr
    assert "a recipe is a mapping" in invoke(*common, "--recipe", "[3]", code=2).output
    told = invoke(*common, "--steps", 5, "--length", 8, "--batch", 1, "--learning-rate", 1e30, code=2).stderr
    assert "cannot be trained so: the loss is" in told


def test_diff_tells_what_changed(tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(TINY.read_text().replace("kv_heads: 2", "kv_heads: 1"))
    found = read("diff", TINY, other)
    assert [(row["path"], row["field"], row["old"], row["new"]) for row in found["changes"]] == [
        ("layers.0-3.mixer.body", "kv_heads", 2, 1)
    ]
    before, after = found["figures"]["parameters"]
    assert before - after == 4 * 2 * 128 * 32  # a key and a value head less in each layer
    assert "layers.0-3.mixer.body: kv_heads 2 → 1" in invoke("diff", TINY, other).stdout
    assert invoke("diff", TINY, TINY).stdout == "identical: same structure and same full hash\n"


def test_kinds_are_listed_and_told() -> None:
    assert "attention" in invoke("kinds").stdout
    page = read("kinds", "attention")
    assert "https://arxiv.org/abs/1706.03762" in page["papers"]
    assert {"heads", "kv_heads"} <= {field["name"] for field in page["fields"]}
    assert "did you mean attention" in invoke("kinds", "atention", code=2).stderr


def test_report_of_nothing_is_the_users_error(tmp_path: Path) -> None:
    assert "there is no study" in invoke("report", tmp_path / "none", code=2).stderr


def test_search_of_a_spec_is_the_users_error() -> None:
    assert "this is a spec, not a study" in invoke("search", TINY, code=2).stderr


def test_ctrl_c_exits_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("archc.check.facts", stop)
    assert "interrupted" in invoke("check", TINY, code=130).stderr


def test_a_bug_is_no_users_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr("archc.check.facts", fail)
    assert isinstance(invoke("check", TINY, code=1).exception, AssertionError)
