"""Multi-Encoder Transformer. Hu et al. 2023, arXiv 2312.15872."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from archspec.spec import Spec
from compiler.model import compile
from search import report
from search.cost.price import price
from search.data.batches import Batch, Data, DataSet, random
from search.runner import run
from search.study import load as load_study
from spaces.space import load as load_space
from tests.models import inputs, perturbed
from tests.zoo.published import ZOO, spec

pytestmark = pytest.mark.system("multi_encoder_transformer")
NAME = "structured/multi_encoder_transformer"
ENCODERS = [f"{kind}_encoder" for kind in ("attention", "recurrent", "convolutional", "fourier", "linear")]
SPACE = ZOO.parent / "spaces" / "encoder_subsets.yaml"


def with_encoders(*names: str) -> Spec:
    return spec(NAME, graph__encoders__branches=list(names))


def parameters(chosen: Spec) -> int:
    return price(chosen, length=8).parameters


@torch.no_grad()
def test_what_encoders_say_is_added() -> None:
    entries = {"encode": {"from": ["source"], "to": ["encoders"]}}
    whole: Any = perturbed(compile(spec(NAME, interface__entries=entries))).eval()
    source = inputs(whole.spec, batch=2, length=9)[0]
    total = torch.zeros(2, 9, 64)
    for number, name in enumerate(ENCODERS):
        one: Any = compile(spec(NAME, interface__entries=entries, graph__encoders__branches=[name])).eval()
        mine = {path.replace(f"branches.{number}.", "branches.0."): value for path, value in whole.state_dict().items()
                if "branches" not in path or f"branches.{number}." in path}  # fmt: skip
        one.load_state_dict(mine)
        total += one.entries["encode"](source)
    torch.testing.assert_close(total, whole.entries["encode"](source), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_one_encoder_is_the_baseline() -> None:
    """A single branch is bit for bit the Transformer whose only encoder stands there without being a branch."""
    one = with_encoders("attention_encoder")
    plain = spec(NAME, graph__encoders={"name": "encoders", "kind": "attention_encoder"})
    a, b = perturbed(compile(one)).eval(), compile(plain).eval()
    state = {name.replace("branches.0.", ""): value for name, value in a.state_dict().items()}
    b.load_state_dict(state)
    given = inputs(one, batch=2, length=9)
    assert torch.equal(a(*given), b(*given))


def test_parameters_add_up_over_encoders() -> None:
    base = parameters(with_encoders("absent"))
    alone = {name: parameters(with_encoders(name)) - base for name in ENCODERS}
    assert alone["attention_encoder"] > alone["fourier_encoder"] > 0
    for chosen in combinations(ENCODERS, 3):
        assert parameters(with_encoders(*chosen)) == base + sum(alone[name] for name in chosen)


class Reversal(Data):
    """A source of random ids is to be told backwards."""

    kind: Literal["zoo/reversal"] = "zoo/reversal"

    def open(self, interface: Any) -> DataSet:
        return ReversalSet(interface)


class ReversalSet(DataSet):
    fingerprint = "reversal"

    def __init__(self, interface: Any) -> None:
        self.interface = interface

    def batch(self, step: int, *, seed: int, size: int, length: int | None) -> Batch:
        source = random(seed, step).integers(1, 16, (size, length or 8))
        told = source[:, ::-1].copy()
        begun = np.concatenate([np.zeros((size, 1), dtype=told.dtype), told[:, :-1]], axis=1)
        given = {"source": torch.from_numpy(source), "target": torch.from_numpy(begun)}
        return Batch(given, torch.from_numpy(told))

    def validation(self, *, size: int, length: int | None, batches: int) -> Iterator[Batch]:
        return (self.batch(2**40 + number, seed=0, size=size, length=length) for number in range(batches))


def test_a_search_over_subsets_of_encoders_runs(tmp_path: Path) -> None:
    space = load_space(SPACE)
    assert space.cardinality() == (2**5, 2**5)
    sizes = {parameters(member.spec) for member in space.members()}
    assert len(sizes) == 2**5
    file = tmp_path / "study.yaml"
    file.write_text(
        f"archstudy: 1\nname: subsets\nspace: {SPACE}\ndata: zoo/reversal\n"
        "train: {steps: 3, batch: 2, length: 6, validation_batches: 1}\n"
        "objectives: [validation_loss, parameters]\nconstraints: [{kind: parameters, at_most: 4e5}]\n"
        "sampler: random\nseed: 0\ntrials: 3\nworkers: 0\n"
    )
    run(load_study(file), out=tmp_path / "run", quiet=True)
    found = report.read(tmp_path / "run")
    assert len(found["all"]) == 3
    assert all(row["values"]["parameters"] <= 4e5 for row in found["all"])
