"""``archc measure`` and ``archc cost --check``: truth is kept, and predictions are held against it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from search import memory
from search.calibration import calibrate, truth
from search.calibration.truth import file_of, read
from search.cost import local
from search.cost.fingerprint import fingerprint
from search.cost.setting import known_device
from tests.archc.invoking import invoke
from tests.archc.test_calibrate import cache, one_line  # noqa: F401
from tests.search.calibration.quick import quick

SPEC = """\
archspec: 1
name: small
interface: {kind: causal_lm, vocab: 64, length: 32}
graph:
  - {kind: token_embedding, width: 16}
  - {kind: transformer_layer, norm: rms_norm, mixer: {kind: attention, heads: 2}, channel: {kind: glu, hidden: 32}}
  - lm_head
"""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path) -> Path:  # noqa: F811
    quick(monkeypatch)
    timed = truth.measure
    monkeypatch.setattr(truth, "measure", lambda *args, **kwargs: timed(*args, budget=0.01, **kwargs))
    file = tmp_path / "small.yaml"
    file.write_text(SPEC)
    return file


def test_what_is_measured_is_kept(small: Path) -> None:
    other = small.with_name("other.yaml")
    other.write_text(SPEC.replace("name: small", "name: other"))
    phases = [word for phase in ("prefill", "decode", "step") for word in ("--phase", phase)]
    result = invoke("measure", small, other, *phases, "--batch", 2, "--context", 7, "--rounds", 2)
    found = read(file_of())
    assert [(one.name, one.phase, one.batch, one.length, one.rounds) for one in found] == [
        (name, phase, 2, length, 2)
        for name in ("small", "other")
        for phase, length in (("prefill", 32), ("decode", 7), ("step", 32))
    ]
    assert {tuple(one.fingerprint.items()) for one in found} == {tuple(fingerprint("cpu").items())}
    assert str(file_of()) in result.stdout and "canary moved by" in result.stdout
    for one in found:
        line = next(
            line for line in result.stdout.splitlines() if re.match(rf"{one.name} +{one.phase} +2 +{one.length} ", line)
        )
        assert f"{one.median_ms:.4g}" in line and f"{one.low_ms:.4g}–{one.high_ms:.4g}" in line
    invoke("measure", small, "--rounds", 1)
    assert len(read(file_of())) == 7


def test_another_file_and_json(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "truth.jsonl"
    threads = torch.get_num_threads()
    try:
        options = ("--truth", out, "--length", 16, "--dtype", "bfloat16", "--rounds", 1, "--threads", 2, "--json")
        told = json.loads(invoke("measure", small, *options).stdout)
    finally:
        torch.set_num_threads(threads)
    (one,) = read(out)
    assert told["truth"] == str(out)
    assert told["measured"][0]["median_ms"] == one.median_ms
    assert (one.length, one.dtype, one.fingerprint["threads"]) == (16, "bfloat16", 2)
    assert not file_of().exists()


def test_what_does_not_fit_is_refused_before_it_is_built(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device="cpu": 1000)
    monkeypatch.setattr("compiler.compile", lambda *_, **__: pytest.fail("built"))
    for phase in ("prefill", "decode", "step"):
        said = one_line(invoke("measure", small, "--phase", phase, code=2).stderr)
        assert re.search(r"small needs [\d.]+ kB of memory on cpu; 1 kB are free", said)
    assert not file_of().exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--length", 33], "33 tokens; the interface allows 1 to 32"),
        (["--phase", "decode", "--context", 32], "one more token after 32; the interface allows 32 in all"),
    ],
)
def test_sizes_that_the_interface_refuses(small: Path, words: list[object], said: str) -> None:
    assert said in invoke("measure", small, *words, code=2).stderr


def test_what_cannot_be_measured(small: Path, tmp_path: Path) -> None:
    graph = "[{kind: patch_embedding, size: 4, width: 8}, {kind: pool, how: mean}, classifier]"
    interface = "{kind: image_classification, image: [8, 8, 1], classes: 4}"
    image = tmp_path / "image.yaml"
    image.write_text(f"archspec: 1\nname: image\ninterface: {interface}\ngraph: {graph}\n")
    assert "decod" in invoke("measure", image, "--phase", "decode", code=2).stderr
    assert "no such file" in invoke("measure", tmp_path / "no.yaml", code=2).stderr
    assert "prefil" in invoke("measure", small, "--phase", "prefil", code=2).stderr
    folder = invoke("measure", small, "--rounds", 1, "--truth", tmp_path, code=2)
    assert "cannot be written: Is a directory" in one_line(folder.stderr)
    invoke("measure", image, "--rounds", 1)
    assert read(file_of())[0].length is None


def test_predictions_are_held_against_truth(small: Path, tmp_path: Path) -> None:
    invoke("measure", small, "--phase", "prefill", "--phase", "decode", "--rounds", 1)
    invoke("measure", small, "--length", 8, "--rounds", 1)
    text = invoke("cost", "--check").stdout
    assert re.search(r"^small +prefill +1 +32 +[\d.e-]+ +[\d.e-]+ +[+-][\d.]+% +\S+–\S+ +(yes|no)$", text, re.M)
    assert re.search(r"^prefill +2 +[\d.]+% +-?1\.000 +– +\d+%$", text, re.M)
    told = json.loads(invoke("cost", "--check", "--json").stdout)
    assert [one["phase"] for one in told["checked"]] == ["prefill", "decode", "prefill"]
    assert told["summary"]["decode"]["count"] == 1
    profile = invoke("cost", small, "--length", 8, "--json").stdout
    assert json.loads(profile)["latency_ms"]["prefill"] == pytest.approx(told["checked"][2]["predicted_ms"])
    elsewhere = json.loads(invoke("cost", "--check", "--device", "t4", "--truth", file_of(), "--json").stdout)
    assert elsewhere["device"] == "NVIDIA T4"


def test_truth_of_another_device_or_version(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    invoke("measure", small, "--rounds", 1)
    file = tmp_path / "truth.jsonl"
    line = file_of().read_text()
    here = fingerprint("cpu")
    file.write_text(line.replace(json.dumps(here["device"]), '"Other CPU"').replace(torch.__version__, "1.0"))
    said = one_line(invoke("cost", "--check", "--truth", file, code=2).stderr)
    assert said.startswith("measured on Other CPU") and "torch 1.0; the profile is of" in said
    assert str(here["device"]) in said and f"torch {torch.__version__}" in said
    file.write_text(f"{line}{{}}\n{line}nonsense\n")
    said = invoke("cost", "--check", "--truth", file, code=2).stderr
    assert f"{file}:2:1" in said and f"{file}:4:1" in said and "version None" in said and "not JSON" in said


def test_truth_that_is_not_there(small: Path) -> None:
    assert "archc measure SPEC makes one" in one_line(invoke("cost", "--check", code=2).stderr)
    said = one_line(invoke("cost", "--check", "--device", "t4", code=2).stderr)
    assert said == "--check needs measurements of t4 name their file with --truth"


def test_a_restless_machine_is_warned_of(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "STEADY", -1.0)
    result = invoke("measure", small, "--rounds", 1)
    first, second = result.stderr.splitlines()
    assert first == "  0%  round 1 of 1"
    assert re.match(r"warning: the canary moved by [\d.]+%: other work runs on this machine", second)


def test_compilers_that_fail_are_told(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise RuntimeError("no C++ compiler\nand more")

    monkeypatch.setattr(torch, "compile", failing)
    said = one_line(invoke("measure", small, "--compiled", "--rounds", 1, code=2).stderr)
    assert said == "torch.compile failed: RuntimeError: no C++ compiler leave --compiled out"


def test_options_that_do_not_fit(small: Path) -> None:
    for words in ((small, "--check"), (small, "--truth", "x.jsonl")):
        assert "--check prices what was measured" in invoke("cost", *words, code=2).stderr


def test_a_profile_that_was_calibrated_is_used(small: Path) -> None:
    invoke("calibrate")
    known_device.cache_clear()
    invoke("measure", small, "--rounds", 1)
    assert local.read().measured is not None
    told = json.loads(invoke("cost", "--check", "--json").stdout)
    assert told["checked"][0]["low_ms"] < told["checked"][0]["predicted_ms"] < told["checked"][0]["high_ms"]
