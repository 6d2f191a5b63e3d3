"""The whole way of a study: searched, reported as a page, the chosen ones trained to the end."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

import compiler
from search.storage import candidate
from tests.archc.invoking import invoke
from tests.search.conftest import SPACE, STUDY
from tests.search.studies import trials


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "space.yaml").write_text(textwrap.dedent(SPACE))
    (tmp_path / "study.yaml").write_text(textwrap.dedent(STUDY))
    return tmp_path / "study.yaml"


def test_the_chosen_ones_are_trained_and_reported(study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = ("search", study, "--out", folder, "--then", "train", "--choose", "knee", "--final-steps", 5)
    said = invoke(*command).stdout
    (place,) = (folder / "final").iterdir()
    assert "after 5 steps: validation_loss" in said and str(place) in said
    assert {file.name for file in place.iterdir()} >= {"spec.yaml", "weights.safetensors", "result.json"}
    assert compiler.load(place) is not None
    page = (folder / "report.html").read_text()
    assert "Trained to the end" in page and place.name in page
    assert invoke(*command).stdout.count("after 5 steps") == 1  # again, which trains nothing

    elsewhere = tmp_path / "page.html"
    (folder / "report.html").unlink()
    assert str(elsewhere) in invoke("report", folder, "--html", elsewhere).stdout
    assert elsewhere.read_text() == page and not (folder / "report.html").exists()


def test_what_is_wrong_is_said_before_the_search(study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    told = invoke("search", study, "--out", folder, "--then", "train", "--choose", "nicest", code=2).stderr
    assert "'nicest' chooses nothing" in told and "knee" in told
    assert "--then train" in invoke("search", study, "--out", folder, "--choose", "knee", code=2).stderr
    assert not folder.exists()


def test_with_0_workers_the_called_process_trains(study: Path, tmp_path: Path) -> None:
    study.write_text(study.read_text().replace("workers: 0", "workers: 1"))
    invoke("search", study, "--out", tmp_path / "run", "--trials", 1, "--workers", 0)
    (trial,) = trials(tmp_path / "run")
    assert candidate(trial)["supervisor"] is None  # which a worker process has


def test_a_study_in_a_database_elsewhere_is_reported(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study.write_text(study.read_text() + f"storage: journal:{tmp_path / 'elsewhere.log'}\n")
    told = invoke("report", study, code=2).stderr
    assert "has no study tiny that has begun" in told and "archc search" in told
    assert "study tiny: 3 complete" in invoke("search", study).stdout
    assert "study tiny: 3 complete" in invoke("report", study).stdout
    assert (tmp_path / "runs" / "tiny" / "report.html").exists()
