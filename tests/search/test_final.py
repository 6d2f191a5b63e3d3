"""The chosen ones trained to the end: which are chosen, by which recipe, and that a stopped run goes on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from optuna.trial import create_trial

import compiler
from archspec.errors import SpecError
from archspec.source import parse
from search import final, report
from search.runner import run
from search.study import load


def front(*points):
    return [create_trial(params={}, distributions={}, values=list(point)) for point in points]


def test_the_knee_is_where_a_little_costs_much():
    points = front((0.0, 10.0), (0.1, 2.0), (0.5, 1.0), (1.0, 0.0))
    both = ("minimize", "minimize")
    assert [rank for rank, _ in final.choose(points, both, "knee")] == [2]
    turned = front(*((-x, y) for x, y in ((0.0, 10.0), (0.1, 2.0), (0.5, 1.0), (1.0, 0.0))))
    assert [rank for rank, _ in final.choose(turned, ("maximize", "minimize"), "knee")] == [2]


def test_a_number_is_spread_over_the_front():
    points = front(*((float(x), -float(x)) for x in range(9)))
    both = ("minimize", "minimize")
    assert [rank for rank, _ in final.choose(points, both, "3")] == [1, 5, 9]
    assert [rank for rank, _ in final.choose(points, both, "100")] == list(range(1, 10))
    assert [rank for rank, _ in final.choose(points, both, "best")] == [1]
    assert final.choose([], both, "knee") == []
    for how in ("0", "all", "-1", "3.5"):
        with pytest.raises(SpecError, match="chooses nothing"):
            final.choose(points, both, how)


def test_the_recipe_is_that_of_the_search_but_for_what_is_said(study_file):
    study = load(study_file(train="{steps: 4, batch: 8, schedule: {warmup: 0.3}}"))
    assert final.recipe(study) == study.recipe.model_copy(update={"steps": 40})
    assert final.recipe(study, 7).steps == 7
    tree = parse("final: {steps: 9, schedule: {final: 0.5}, batch: 4}", "study")
    longer = final.recipe(replace(study, tree=tree))
    assert (longer.steps, longer.batch, longer.schedule.warmup, longer.schedule.final) == (9, 4, 0.3, 0.5)
    assert final.recipe(replace(study, tree=parse("final: {batch: 4}", "study"))).steps == 40
    with pytest.raises(SpecError, match="stepps"):
        final.recipe(replace(study, tree=parse("final: {stepps: 9}", "study")))


def test_a_stopped_run_goes_on_to_the_same_weights(study_file, tmp_path, monkeypatch):
    study = load(study_file())
    run(study, out=tmp_path / "run", quiet=True)
    whole = final.train(study, tmp_path / "run", steps=6, how="best", quiet=True)
    (one,) = whole
    weights = (one.folder / "weights.safetensors").read_bytes()
    found = report.read(tmp_path / "run")
    (told,) = found["final"]
    assert told["steps"] == 6 and told["values"] == dict(one.values)
    assert told["searched"] == found["front"][0]["values"] and "after 6 steps" in report.text(found)
    stored = final.read_result(one.folder)
    assert stored["loaded_again"] < 1e-6
    model = compiler.load(one.folder)
    assert sum(p.numel() for p in model.parameters()) == one.values["parameters"]

    stamp = (one.folder / "result.json").stat().st_mtime_ns
    assert final.train(study, tmp_path / "run", steps=6, how="best", quiet=True)[0].values == one.values
    assert (one.folder / "result.json").stat().st_mtime_ns == stamp  # nothing is trained again

    for file in one.folder.iterdir():
        file.unlink()
    monkeypatch.setattr(final, "fit", _stopped)
    with pytest.raises(KeyboardInterrupt):
        final.train(study, tmp_path / "run", steps=6, how="best", quiet=True)
    assert not (one.folder / "result.json").exists()
    monkeypatch.setattr(final, "fit", _fit)
    assert final.train(study, tmp_path / "run", steps=6, how="best", quiet=True)[0].values == one.values
    assert (one.folder / "weights.safetensors").read_bytes() == weights


_fit = final.fit


def _stopped(*args, progress=None, **more):
    def stop(step, of, loss):
        if step == 4:
            raise KeyboardInterrupt

    return _fit(*args, progress=stop, save_seconds=0.0, **more)


def test_one_that_cannot_be_trained_is_told_and_the_others_go_on(study_file, tmp_path, monkeypatch):
    study = load(study_file(trials="6"))
    run(study, out=tmp_path / "run", quiet=True)
    calls = []

    def sometimes(*args, **more):
        calls.append(args)
        if len(calls) == 1:
            raise final.TrainingFailed("the loss is nan at step 3")
        return _fit(*args, **more)

    monkeypatch.setattr(final, "fit", sometimes)
    found = final.train(study, tmp_path / "run", steps=2, quiet=True)
    assert found[0].reason == "the loss is nan at step 3"
    assert all(one.values for one in found[1:])


def test_a_folder_that_another_process_trains_is_left_to_it(tmp_path):
    with final._locked(tmp_path / "one") as mine, final._locked(tmp_path / "one") as also:
        assert mine and not also
    with final._locked(tmp_path / "one") as mine:
        assert mine


def test_weights_differ_from_those_of_the_search(study_file, tmp_path):
    study = load(study_file(trials="2"))
    run(study, out=tmp_path / "run", quiet=True)
    (one,) = final.train(study, tmp_path / "run", steps=30, how="best", quiet=True)
    place = next((tmp_path / "run" / "pareto").glob("1-*"))
    then, now = compiler.load(place), compiler.load(one.folder)
    pairs = zip(then.parameters(), now.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)
    assert np.isfinite(one.values["validation_loss"])
