"""The four patterns of attention. Zhang et al. 2023, arXiv 2210.07661."""

from typing import Any

import pytest
import torch
from torch import Tensor

from archspec.errors import SpecError
from archspec.kind import REGISTRY
from archspec.serving import PATTERNS, example, mixers, serves
from compiler.model import compile
from tests.archc.invoking import invoke
from tests.models import inputs, perturbed, runs
from tests.zoo.published import build, random, spec

pytestmark = pytest.mark.system("cab")

NAME = "attention/cab"
PUBLISHED = {  # by the table of the authors' library; what ours serves besides is not theirs
    "nystrom_attention": {"self"},
    "sliding_window_attention": {"self"},
    "linear_attention": {"self", "cross", "causal cross"},
    "attention": set(PATTERNS),
    "mamba": {"self", "causal self"},
    "long_convolution": {"self", "causal self"},
}


def told(model: Any, given: list[Tensor]) -> Tensor:
    (out,) = runs(model, given).values()
    return out


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("name", mixers())
@torch.no_grad()
def test_what_is_served_runs_and_the_rest_is_refused(name: str, pattern: str) -> None:
    kind = REGISTRY[name]
    if pattern not in serves(kind):
        with pytest.raises(SpecError) as error:
            example(kind, pattern)
        (problem,) = error.value.problems
        assert problem.mark is not None
        if pattern == "cross" and kind.arity[1] == 1:
            assert str(problem.cause) == f"{name} reads its own tokens alone, it serves no cross-attention"
        return
    made = example(kind, pattern)
    model = perturbed(compile(made)).eval()
    given = [tensor / 10 for tensor in inputs(made, batch=2, length=16)]  # so that no kernel sees all as far apart
    before = told(model, given)
    assert before.shape[:2] == (2, 16)
    for at in (3, 9):
        changed = [given[0].clone(), *given[1:]]
        changed[0][:, at] -= 0.1
        after = told(model, changed)
        assert not torch.equal(after[:, at], before[:, at])
        if "causal" in pattern:
            torch.testing.assert_close(after[:, :at], before[:, :at], atol=1e-4, rtol=1e-4)
    if "cross" in pattern:  # it reads what it is given, and all of it
        for at in (0, 7):
            changed = [given[0], given[1].clone()]
            changed[1][:, at] -= 0.1
            assert not torch.allclose(told(model, changed), before, atol=1e-6)


def test_every_mixer_serves_something() -> None:
    assert not [name for name in mixers() if not serves(REGISTRY[name])]
    assert serves(REGISTRY["mlp"]) == ()


@pytest.mark.parametrize("name", PUBLISHED)
def test_as_in_the_published_table(name: str) -> None:
    found = set(serves(REGISTRY[name]))
    assert found >= PUBLISHED[name]
    if "cross" not in PUBLISHED[name]:
        assert not any("cross" in pattern for pattern in found)
    if name == "nystrom_attention":
        assert "causal self" not in found


def test_it_is_told() -> None:
    assert "\nserves: self, causal self, cross, causal cross\n" in invoke("kinds", "attention").stdout
    assert "serves" not in invoke("kinds", "layer_norm").stdout


@pytest.mark.parametrize(
    ("block", "mixer", "said"),
    [
        ("causal_self", {"kind": "nystrom_attention", "heads": 2}, "every token reads later ones"),
        ("cross", {"kind": "nystrom_attention", "heads": 2, "memory": "told"}, "it serves no cross-attention"),
        ("causal_cross", {"kind": "mamba", "memory": "told"}, "it serves no cross-attention"),
        ("cross", {"kind": "attention", "heads": 2, "memory": "tolt"}, "tolt"),
    ],
)
def test_a_mixer_that_cannot_is_refused_where_it_stands(block: str, mixer: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said) as error:
        spec(NAME, **{f"blocks__{block}": mixer})
    assert len(error.value.problems) == 1


@torch.no_grad()
def test_one_model_of_all_four() -> None:
    model = random(build(NAME))
    source, target = (torch.arange(2 * 16).reshape(2, 16) * factor % 64 for factor in (7, 11))
    before = model(source, target)
    assert {name: tuple(out.shape) for name, out in before.items()} == {"summary": (2, 4, 32), "next": (2, 16, 32)}
    changed = target.clone()
    changed[:, 8] += 1
    after = model(source, changed)
    assert torch.equal(after["summary"], before["summary"])
    torch.testing.assert_close(after["next"][:, :8], before["next"][:, :8], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(after["next"][:, 8:], before["next"][:, 8:], atol=1e-3)
    changed = source.clone()
    changed[:, 15] += 1
    after = model(changed, target)
    for name, out in before.items():
        assert not torch.allclose(after[name][:, 0], out[:, 0], atol=1e-4)
