from pathlib import Path
from random import Random

import pytest

from archspec.errors import SpecError
from archspec.readable import readable
from archspec.resolve import resolve
from archspec.source import parse, read
from archspec.spec import from_tree
from spaces.deriving import FIELDS, derive
from spaces.space import Space

ROOT = Path(__file__).parents[2] / "examples"
FILES = [ROOT / "tiny.yaml", *sorted((ROOT / "zoo").rglob("*.yaml"))]


def derived(tree, *words):
    return Space(resolve(parse(readable(derive(tree, words)), "derived.yaml")))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_default_is_the_spec(file):
    tree = resolve(read(file))
    words = []
    for word in ("ffn", "depth", "width", "heads", "kv_heads"):
        try:
            derive(tree, [word])
        except SpecError as error:
            assert f"no {word} of this spec can vary" in str(error)
        else:
            words.append(word)
    space, spec = derived(tree, *words), from_tree(tree)
    assert space.default().spec.structure == spec.structure
    assert space.default().spec.full == spec.full
    assert space.cardinality().low > 3
    random = Random(0)
    assert any(space.draw(random).codes != space.default().codes for _ in range(5))
    space.sample(random)


def test_all_that_can_vary_in_a_small_decoder():
    tree = resolve(read(ROOT / "tiny.yaml"))
    space = derived(tree, *(word for word in FIELDS if word != "activations"))
    assert space.default().spec.full == from_tree(tree).full
    options = {slot.path: getattr(slot.node, "labels", None) for slot in space.slots}
    assert options["dims.width"] == [64, 96, 128, 160, 192]
    assert options["blocks.layer.mixer.attention.heads"] == [2, 4, 8]  # 1 cannot be shared by 2
    assert options["blocks.layer.mixer.attention.kv_heads"] == [1, 2, 4]
    assert "8 * width / 3" in options["blocks.layer.channel.hidden"]
    assert "mamba2" in options["blocks.layer.mixer"]
    assert options["blocks.layer.norm"] == ["rms_norm", "layer_norm"]
    (depth,) = [slot.node for slot in space.slots if slot.path.endswith("times")]
    assert (depth.low, depth.high, depth.default) == (2, 4, 4)
    random = Random(0)
    assert sum(space.refusal(space.draw(random)) is None for _ in range(100)) >= 95


def test_heads_that_vary_beside_a_width_divide_it():
    space = derived(resolve(read(ROOT / "zoo/language/gpt2.yaml")), "heads", "width")
    random = Random(0)
    drawn = [space.draw(random) for _ in range(100)]
    assert len({(one.values["dims.width"], one.values["dims.heads"]) for one in drawn}) > 10
    assert all(one.values["dims.width"] % one.values["dims.heads"] == 0 for one in drawn)
    assert all(space.refusal(one) is None for one in drawn[:30])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hedas"], "nothing to vary is called 'hedas'\n  did you mean heads"),
        (["activations"], "no activations of this spec can vary\n  leave it out"),
    ],
)
def test_what_cannot_vary(words, message):
    with pytest.raises(SpecError) as raised:
        derive(resolve(read(ROOT / "tiny.yaml")), words)
    assert message in str(raised.value)
