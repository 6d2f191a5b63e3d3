"""What holds of every proxy: registered, known before training, the same again, and of every interface that trains."""

import math

import pytest

from archspec.errors import SpecError
from archspec.source import parse
from search.data.batches import Data
from search.objectives import Objective, Priced
from search.proxies.probing import probed
from search.recipe import Recipe
from spaces import space as spaces

PROXIES = sorted(name for name, kind in Objective.kinds().items() if kind.probe is not Objective.probe)
MIXED = """{kind: transformer_layer, norm: layer_norm, mixer: {kind: mamba2, heads: 2, state: 8},
      channel: {kind: mlp, hidden: 48}}"""


def objective(name):
    return Objective.read(name, "objectives[0]", None)


def test_all_are_there():
    assert PROXIES == [
        "activation_distance", "gradient_norm", "head_confidence", "naswot", "snip", "synflow", "zen_score",
    ]  # fmt: skip


@pytest.mark.parametrize("name", PROXIES)
def test_a_proxy_is_known_before_training_and_is_more_when_better(name):
    proxy = objective(name)
    assert proxy.stage == "probe" and not proxy.needs_training and proxy.direction == "maximize"
    assert objective("parameters").stage == "before" and objective("validation_loss").stage == "after"


@pytest.mark.parametrize("name", PROXIES)
def test_it_is_the_same_for_the_same_seed(name, decoder):
    first, again, other = (objective(name).probe(decoder(seed=seed)) for seed in (0, 0, 1))
    assert math.isfinite(first) and first == again
    assert (first == other) == (name == "zen_score")  # it draws its own weights


@pytest.mark.parametrize("name", PROXIES)
def test_it_sees_any_mixer_and_images(name, decoder):
    vision = spaces.load("vision_transformer").default().spec
    images = probed(vision, Data.read("digits", "data", None).open(vision.interface), Recipe(batch=8))
    assert math.isfinite(objective(name).probe(images))
    if name == "head_confidence":
        with pytest.raises(SpecError):
            objective(name).probe(decoder(MIXED))
    else:
        assert math.isfinite(objective(name).probe(decoder(MIXED)))


def test_a_study_may_bound_a_proxy(study_file):
    from search.study import load

    study = load(study_file(constraints="[{kind: synflow, at_least: 3}]", objectives="[validation_loss, naswot]"))
    assert study.bounds[0].objective.stage == "probe" and str(study.bounds[0]) == "synflow at least 3"
    with pytest.raises(SpecError, match="did you mean synflow"):
        Objective.read(parse("x: {kind: synflw}", "x")["x"], "x", None)


def test_a_candidate_is_built_once_and_only_where_a_proxy_asks(decoder):
    built = []
    candidate = Priced(
        None, Recipe(), lambda spec, **_: {"parameters": {"total": 7}}, lambda spec: built.append(1) or decoder()
    )
    assert objective("parameters").before(candidate) == 7 and not built
    figures = [objective(name).before(candidate) for name in ("snip", "naswot")]
    assert figures == [objective(name).probe(decoder()) for name in ("snip", "naswot")] and len(built) == 1
    candidate.forget()
    objective("synflow").before(candidate)
    assert len(built) == 2
