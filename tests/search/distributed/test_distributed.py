"""Runs of two processes beside the same run of one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import compiler
from archspec import spec
from archspec.errors import SpecError
from search import checkpoint
from search.data.batches import Batch
from search.distributed import sharding
from search.distributed.group import Group
from search.fit import RESULT
from search.outcome import TrainingResult
from tests.search.distributed import programs

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


# Freed memory goes back at once, so that what a process takes is what it holds.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}


def start(*words, processes=2, restarts=0, code=0, **environment):
    """What processes say that torchrun starts."""
    runner = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--standalone",
              f"--max-restarts={restarts}", "--monitor-interval=0.2"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}
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
        torch.testing.assert_close(weight, others[name], rtol=0, atol=1e-5)
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
    restart = next(place for place, step in enumerate(steps) if place and step <= steps[place - 1])
    assert steps[:restart] == list(range(1, restart + 1)) and restart >= 4  # the last was perhaps not told any more
    assert steps[restart] > 1 and steps[restart:] == list(range(steps[restart], 9)), steps
    same(folder / "decoder", tmp_path)


@pytest.mark.slow
def test_each_process_needs_less_memory(tmp_path):
    start(HERE / "programs.py", "memory", tmp_path, **MALLOC)
    start(HERE / "programs.py", "memory", tmp_path / "alone", processes=1, **MALLOC)
    one = json.loads((tmp_path / "alone" / "memory.json").read_text())
    assert all(json.loads((tmp_path / f"memory{rank}.json").read_text()) < 0.75 * one for rank in (0, 1))


@pytest.mark.slow
def test_an_error_of_all_is_told_once(tmp_path):
    (tmp_path / "small.yaml").write_text(programs.SPECS["decoder"])
    command = ["-m", "archc", "train", tmp_path / "small.yaml", "--batch", "3", "--out", tmp_path / "run"]
    said = start(*command, code=1).stderr
    assert said.count("a batch of 3 cannot be divided among 2 processes") == 1 and "try 2 or 4" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_command_trains_and_tells_it_once(tmp_path):
    (tmp_path / "small.yaml").write_text(programs.SPECS["decoder"])
    command = ["-m", "archc", "train", tmp_path / "small.yaml", "--batch", "4", "--steps", "3", "--length", "16",
               "--out", tmp_path / "run", "--data", ROOT / "README.md"]  # fmt: skip
    ran = start(*command)
    assert ran.stdout.count("after 3 steps") == 1 and ran.stderr.count("step      3 of 3") == 1
    again = start(*command)  # it is finished
    assert again.stdout == ran.stdout and "step " not in again.stderr


def settled(text=programs.SPECS["decoder"], **changes):
    Group(0, 2, 0, 2).settled(spec.loads(text), programs.RECIPE.model_copy(update=changes))


def test_what_cannot_be_shared_is_refused(monkeypatch):
    for changes, said in (
        ({"batch": 1}, "a batch of 1 cannot be divided among 2 processes\n  try 2"),
        ({"device": "mps"}, "several processes train on cpu or cuda, not on mps"),
        ({"device": "cuda:1"}, "and cuda:1 is one\n  try device: cuda"),
    ):
        with pytest.raises(SpecError, match=said):
            settled(**changes)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SpecError, match="2 processes and 1 GPUs\n  try torchrun --nproc-per-node 1"):
        settled(device="cuda")
    experts = programs.EXPERTS % "loss"
    with pytest.raises(SpecError, match="samples share the room of each expert"):
        settled(programs.SPECS["mixture"].replace(experts, experts.replace("k: 2", "k: 2, capacity: 1.0")))
    model = torch.nn.Module()
    model.gain = torch.nn.Parameter(torch.tensor(1.0))
    with pytest.raises(SpecError, match="gain is a single number"):
        sharding.shard(model, None)


def test_blocks_that_share_weights_stay_with_what_is_around_them():
    def found(**repeat):
        layer = programs.LAYER % "{kind: mlp, hidden: 32}"
        text = programs.MODEL % ("causal_lm", 16, 3, layer)
        for name, value in repeat.items():
            text = text.replace("times: 3", f"times: 3, {name}: {value}")
        model = compiler.compile(spec.loads(text), device="meta")
        names = {id(module): name for name, module in model.named_modules()}
        return [names[id(block)] for block in sharding.blocks(model)]

    assert found() == ["repeat.0", "repeat.1", "repeat.2"]
    assert found(share="[mixer]") == []


def test_each_process_has_its_rows():
    def rows(rank, batch):
        return Group(rank, 3, rank, 3).rows(Batch({"tokens": batch}, batch)).targets.tolist()

    batch = torch.arange(7)
    assert [rows(rank, batch) for rank in range(3)] == [[0, 1, 2], [3, 4], [5, 6]]
    assert [rows(rank, batch[:2]) for rank in range(3)] == [[0], [1], [-100]]


def test_a_process_alone_does_without():
    program = """
import sys
import search.fit
from search.distributed import joined
with joined() as group:
    assert group is None
assert "search.distributed.group" not in sys.modules and "torch.distributed.fsdp" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120, cwd=ROOT)
