"""Reports: what is told of a study, on paper and in a picture."""

import json

import pytest
from matplotlib import image

from archspec.errors import SpecError
from archspec.spec import load as load_spec
from search import report
from search.runner import run
from search.study import load


def test_a_report_has_the_front_the_reasons_and_the_next_step(study_file, tmp_path):
    lines = {"constraints": "[{kind: parameters, at_most: 1600}]", "trials": "7", "train": "{steps: 1, batch: 4}"}
    objectives = "[validation_accuracy, {kind: latency, measured: true, repeats: 3}, flops]"
    run(load(study_file(**lines, objectives=objectives)), out=tmp_path / "run", quiet=True)
    found = report.read(tmp_path / "run")
    written = report.write(found, tmp_path / "run")
    assert [path.name for path in written] == ["report.json", "report.html", "pareto.png"]
    assert json.loads(written[0].read_text()) == found and found["schema"] == 1
    assert found["trials"] == {"complete": 7, "failed": 0, "running": 0}
    names = [objective["name"] for objective in found["objectives"]]
    assert names == ["validation_accuracy", "latency (measured, repeats 3)", "flops"]
    best = found["front"][0]
    assert best["values"]["validation_accuracy"] == max(row["values"]["validation_accuracy"] for row in found["all"])
    assert best["side_by_side"][names[1]]["median_ms"] > 0 and best["choices"]["dims.width"] in (8, 12)
    picture = image.imread(written[2])
    assert picture.shape[1] > picture.shape[0] > 400 and picture.std() > 0.05
    said = report.text(found)
    assert "draws refused: parameters at most 1,600" in said and best["spec"] in said
    assert found["next"] == [
        f"archc train {best['spec']} --data digits --steps 10 --batch 4 --learning-rate 0.003 --device cpu "
        f"--out {tmp_path / 'run' / 'winner'}"
    ]

    assert load_spec(best["spec"]).full == best["hash"]


def test_one_objective_is_drawn_over_the_trials(study_file, tmp_path):
    run(load(study_file(objectives="[validation_loss]")), out=tmp_path / "run", quiet=True)
    found = report.read(tmp_path / "run")
    assert len(found["front"]) == 1
    assert report.write(found, tmp_path / "run")[-1].stat().st_size > 5000


def test_what_a_model_writes_cannot_steer_a_terminal(study_file, tmp_path):
    run(load(study_file()), out=tmp_path / "run", quiet=True)
    found = {**report.read(tmp_path / "run"), "text": "def \x1b[2J\x07[red]x[/red]\n"}
    assert "\x1b" not in report.text(found) and "def ·[2J·[red]x[/red]" in report.text(found)


def test_a_folder_without_a_study_is_refused(tmp_path):
    with pytest.raises(SpecError, match="there is no study in"):
        report.read(tmp_path)
