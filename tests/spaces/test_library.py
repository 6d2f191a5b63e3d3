from random import Random

import numpy as np
import pytest

from archspec.errors import SpecError
from spaces.encoding import decode, sample_encoded
from spaces.space import library, library_file, load
from spaces.survey import check

SCALED = {
    "language_model": {"dims.width": {"choose": [512, 1024]}, "interface.vocab": 50257, "graph.layers.times": 24},
    "vision_transformer": {
        "interface.image": [224, 224, 3],
        "interface.classes": 1000,
        "graph.patch_embedding.size": {"choose": [14, 16]},
        "dims.width": {"choose": [384, 768]},
    },
    "hw_gpt_s": {"dims.width": {"choose": [1024, 1536]}, "dims.layers": {"range": [22, 24], "default": 24}},
    "hybrid_attention_convolution": {"dims.width": 512, "graph.layers.times": {"range": [12, 24]}},
}


@pytest.mark.parametrize("name", library())
def test_every_option_of_a_library_space_is_legal_and_its_default_too(name):
    space = load(name)
    result = check(space, Random(0), samples=100)
    assert result.accepted == 1
    assert space.cardinality().exact
    assert space.default().spec.name == name


@pytest.mark.parametrize("name", SCALED)
def test_library_spaces_scale_by_overrides(name):
    space = load(name, set=SCALED[name])
    random = Random(0)
    assert all(space.sample(random).spec.interface for _ in range(3))


@pytest.mark.parametrize("name", library())
def test_encoded_members_of_library_spaces_are_members(name):
    space = load(name)
    for vector in sample_encoded(space, np.random.default_rng(0), 20):
        assert space.refusal(decode(space, vector)) is None


def test_an_unknown_name_is_told_with_the_nearest():
    with pytest.raises(SpecError, match="did you mean language_model"):
        library_file("langauge_model")
