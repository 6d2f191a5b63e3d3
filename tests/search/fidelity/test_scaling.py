"""The step law against what its authors published, and as part of a recipe."""

import pytest

from archspec import spec
from archspec.errors import SpecError
from archspec.source import parse
from search.fidelity import scaling
from search.fidelity.scaling import BatchLaw, RateLaw
from search.kinds import fields
from search.recipe import Recipe

SPEC = """
archspec: 1
name: small
interface: {{kind: causal_lm, vocab: 256, length: 256}}
graph:
  - {{kind: token_embedding, width: {width}}}
  - kind: repeat
    times: {layers}
    body:
      kind: transformer_layer
      norm: rms_norm
      mixer: {{kind: attention, heads: {heads}, position: alibi}}
      channel: {{kind: glu, hidden: {hidden}}}
  - rms_norm
  - {{kind: lm_head, tied: {tied}}}
"""
IMAGES = """
archspec: 1
name: images
interface: {kind: image_classification, image: [8, 8, 1], classes: 10}
graph: [{kind: patch_embedding, size: 4, width: 8}, {kind: pool, how: mean}, classifier]
"""


def small(width=16, heads=2, hidden=32, layers=2, tied="true"):
    return spec.loads(SPEC.format(width=width, heads=heads, hidden=hidden, layers=layers, tied=tied))


# data/dense_lr_bs_loss.csv of github.com/step-law/steplaw: h, ffnh, numh, numl, N
PUBLISHED = [
    (960, 9368, 15, 7, 214663680),
    (1024, 9552, 16, 8, 268304384),
    (1280, 9472, 10, 10, 429260800),
    (1280, 9048, 10, 13, 536872960),
    (2048, 8192, 16, 16, 1073741824),
]


@pytest.mark.parametrize("tied", ["true", "false"])
@pytest.mark.parametrize(("width", "hidden", "heads", "layers", "count"), PUBLISHED)
def test_weights_are_counted_as_its_authors_count_theirs(width, hidden, heads, layers, count, tied):
    ours = scaling.parameters(small(width, heads, hidden, layers, tied))
    norms = (2 * layers + 1) * width  # its authors leave them out: less than a ten thousandth
    assert ours == count + norms and norms < 1e-4 * count


# The grids' best of the same file: N, tokens, learning rate, tokens of a batch.
BEST = [
    (214663680, 20e9, 0.00391, 524288),
    (268304384, 80e9, 0.003906, 1048576),
    (429260800, 40e9, 0.00276, 524288),
    (536872960, 50e9, 0.00276, 720896),
    (1073741824, 56.9e9, 0.001381, 524288),
]


@pytest.mark.parametrize(("weights", "tokens", "rate", "batch"), BEST)
def test_the_law_comes_near_the_best_of_its_authors_grids(weights, tokens, rate, batch):
    """Their grid's neighbours are a factor of 1.4 apart in the rate, and of up to 2 in the batch."""
    assert RateLaw().rate(weights, tokens) == pytest.approx(rate, rel=0.4)
    law = 0.58 * tokens**0.571
    assert batch / 2 < law < batch * 2
    assert BatchLaw().tokens(tokens / law) == pytest.approx(law)  # of as many steps as make up the tokens


def test_a_recipe_is_resolved_for_each_candidate():
    recipe = Recipe(steps=600, batch="step_law", learning_rate="step_law", length=64)
    first, second = (recipe.resolved(small(layers=layers, width=128, hidden=512)) for layers in (8, 16))
    assert first.batch == second.batch == round(BatchLaw().tokens(600) / 64) == 22
    assert first.learning_rate / second.learning_rate == pytest.approx(2**0.713, rel=2e-3)
    assert first.resolved(small()) is first
    assert len({recipe.digest, first.digest, second.digest, Recipe(steps=600, length=64).digest}) == 4
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe and hash(recipe) == hash(recipe.model_copy())


def test_accumulated_passes_are_part_of_the_batch():
    recipe = Recipe(steps=600, batch="step_law", learning_rate="step_law", length=16)
    whole, parts = recipe.resolved(small()), recipe.model_copy(update={"accumulate": 4}).resolved(small())
    assert whole.batch == 88 and parts.batch == 22 and whole.learning_rate == parts.learning_rate


def test_models_smaller_than_any_that_was_measured_are_bounded():
    said = fields(Recipe, parse("train: {learning_rate: {kind: step_law, times: 0.5}}", "study.yaml")["train"])
    assert said.resolved(small()).learning_rate == 0.5 * 2**-7
    free = said.model_copy(update={"learning_rate": RateLaw(at_most=1)})
    assert 0.02 < free.resolved(small()).learning_rate < 1


def test_images_have_no_tokens_to_count():
    images = spec.loads(IMAGES)
    assert Recipe(batch=4).resolved(images).batch == 4
    for said in ({"batch": "step_law"}, {"learning_rate": "step_law"}):
        with pytest.raises(SpecError, match="counts tokens that are learned; image_classification has none") as caught:
            Recipe(**said).resolved(images)
        assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("said", "place", "cause"),
    [
        ("{learning_rate: fast}", "1:24  train.learning_rate", "learning_rate is 'fast'; it should be a valid number"),
        ("{learning_rate: -1}", "1:24  train.learning_rate", "greater than 0"),
        ("{batch: 2.5}", "train.batch", "it should be a valid integer"),
        ("{batch: {kind: stp_law}}", "train.batch.kind", "kind cannot be 'stp_law'"),
        ("{batch: {kind: step_law, tims: 2}}", "train.batch.tims", "there is no field 'tims' here"),
        ("{learning_rate: {kind: step_law, times: 0}}", "train.learning_rate.times", "greater than 0"),
    ],
)
def test_what_is_wrong_is_told_once(said, place, cause):
    with pytest.raises(SpecError) as caught:
        fields(Recipe, parse(f"train: {said}", "study.yaml")["train"], "train")
    assert len(caught.value.problems) == 1 and place in str(caught.value) and cause in str(caught.value)
