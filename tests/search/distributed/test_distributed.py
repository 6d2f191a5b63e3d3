"""Runs of two processes beside the same run of one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import compiler
from search import checkpoint
from search.fit import RESULT
from search.outcome import TrainingResult
from tests.search.distributed import programs

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def start(*words, processes=2, restarts=0, module=False, code=0):
    """What processes say that torchrun starts."""
    runner = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--standalone",
              f"--max-restarts={restarts}", "--monitor-interval=0.2", *(["-m"] if module else [])]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [*runner, *map(str, words)], capture_output=True, text=True, timeout=300, env=environment, cwd=ROOT
    )
    assert ran.returncode == code, ran.stderr
    return ran


def same(one, other):
    """Two folders of finished runs."""
    mine, others = (load_file(folder / "weights.safetensors") for folder in (one, other))
    assert mine.keys() == others.keys()
    for name, weight in mine.items():
        torch.testing.assert_close(weight, others[name], rtol=0, atol=1e-5, msg=lambda said, name=name: f"{name}: {said}")
    first, second = (
        TrainingResult.from_dict(json.loads((folder / RESULT).read_text())["training"]) for folder in (one, other)
    )
    assert first.losses == pytest.approx(second.losses, abs=1e-5) and first.targets == second.targets
    for (step, loss, accuracy), validation in zip(first.validations, second.validations, strict=True):
        assert (step, loss) == (validation[0], pytest.approx(validation[1], abs=1e-5))
        assert accuracy == pytest.approx(validation[2], abs=2e-3)  # a target on the edge may tip over


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("shared")
    start(HERE / "programs.py", "every", place)
    return place


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return tmp_path_factory.mktemp("alone")


@pytest.mark.slow
@pytest.mark.parametrize("name", programs.SPECS)
def test_two_processes_learn_what_one_does(folder, alone, name):
    programs.trained(programs.SPECS[name], alone / name, None)
    same(folder / name, alone / name)
    assert sorted(path.name for path in (folder / name).iterdir()) == [RESULT, "spec.yaml", "weights.safetensors"]
    compiler.load(folder / name)


@pytest.mark.slow
def test_one_process_goes_on_where_two_paused_and_two_where_one_did(folder, alone):
    paused = alone / "goes on alone"
    paused.mkdir()
    (paused / checkpoint.NAME).write_bytes((folder / "paused" / checkpoint.NAME).read_bytes())
    programs.trained(programs.SPECS["decoder"], paused, None)
    same(folder / "decoder", paused)
    other = alone / "paused alone"
    programs.trained(programs.SPECS["decoder"], other, None, until=4)
    start(HERE / "programs.py", "goes_on", other)
    same(folder / "decoder", other)


@pytest.mark.slow
def test_a_killed_process_brings_all_back_to_the_checkpoint(folder, tmp_path):
    start(HERE / "programs.py", "killed", tmp_path, restarts=1)
    steps = [int(step) for step in (tmp_path / "steps").read_text().split()]
    again = steps.index(next(b for a, b in zip(steps, steps[1:], strict=False) if b <= a), 1)
    assert steps[0] == 1 and 1 < steps[-8 + steps[again] - 1] <= 6 and steps[-1] == 8, steps
    same(folder / "decoder", tmp_path)


@pytest.mark.slow
def test_each_process_needs_less_memory(tmp_path):
    start(HERE / "programs.py", "memory", tmp_path)
    start(HERE / "programs.py", "memory", tmp_path / "alone", processes=1)
    one = json.loads((tmp_path / "alone" / "memory.json").read_text())
    assert all(json.loads((tmp_path / f"memory{rank}.json").read_text()) < 0.75 * one for rank in (0, 1))
