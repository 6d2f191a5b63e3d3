"""Parameters of published members of library spaces, as their publications or their code count them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from archspec.errors import SpecError
from search.cost import price
from spaces.space import Space, load


def parameters(space: Space, values: Mapping[str, Any]) -> int:
    return price(space.candidate(values).spec, device="l4").parameters


# --- AutoFormer -----------------------------------------------------------------------------------------------------

# experiments/subnet/AutoFormer-{T,S,B}.yaml of github.com/microsoft/Cream
SEARCHED = {
    "autoformer_tiny": (192, "3333333333433", (3.5, 3.5, 3, 3.5, 3, 3, 4, 4, 3.5, 4, 3.5, 4, 3.5)),
    "autoformer_small": (384, "6657555667767", (3, 3.5, 3, 3.5, 4, 4, 4, 4, 4, 4, 4, 3.5, 4)),
    "autoformer_base": (576, "99999a99a9a99a", (3.5, 3.5, 4, 3.5, 4, 3.5, 3.5, 3, 4, 4, 3, 4, 3, 3.5)),
}
MILLIONS = {"autoformer_tiny": 5.9, "autoformer_small": 22.9, "autoformer_base": 53.7}  # "5.8M", "22.9M", "53.7M"
PLACES = 4 * 30 * 64  # relative places of a layer: two axes, keys and values


def numel(width: int, heads: Sequence[int], ratios: Sequence[float]) -> int:
    """As ``get_sampled_params_numel`` of AutoFormer adds up, its relative places left out."""
    total = (16 * 16 * 3 + 1) * width + (2 + 196) * width + 2 * width + 1000 * (width + 1)
    for head, ratio in zip(heads, ratios, strict=True):
        read, inner = 64 * head, int(ratio * width)
        total += 4 * width * read + 2 * width * inner + 3 * read + inner + 6 * width
    return total


def vision(width: int, heads: Sequence[int], ratios: Sequence[float]) -> dict[str, Any]:
    layers = {
        f"graph[3].body[{number}].{field}": value
        for number, pair in enumerate(zip(heads, ratios, strict=True))
        for field, value in zip(("mixer.heads", "channel.ratio"), pair, strict=True)
    }
    return {"dims.width": width, "dims.layers": len(heads), **layers}


@pytest.mark.parametrize("name", SEARCHED)
def test_autoformers_have_the_parameters_that_their_code_counts(name: str) -> None:
    width, letters, ratios = SEARCHED[name]
    heads = [int(letter, 16) for letter in letters]
    ratio = {"graph.layers.body.channel.ratio": {"choose": [3, 3.5, 4]}}
    found = parameters(load(name, set=ratio if name == "autoformer_tiny" else {}), vision(width, heads, ratios))
    assert found == numel(width, heads, ratios)
    assert round((found + PLACES * len(heads)) / 1e6, 1) == MILLIONS[name]


def test_the_published_autoformer_t_has_perceptrons_that_its_space_has_not() -> None:
    width, letters, ratios = SEARCHED["autoformer_tiny"]
    with pytest.raises(SpecError, match="3 cannot be chosen here"):
        load("autoformer_tiny").candidate(vision(width, [int(letter) for letter in letters], ratios))


@pytest.mark.parametrize(
    ("name", "smallest", "largest"),
    [
        ("autoformer_tiny", (192, 3, 3.5, 12), (240, 4, 4, 14)),
        ("autoformer_small", (320, 5, 3, 12), (448, 7, 4, 14)),
        ("autoformer_base", (528, 8, 3, 14), (624, 10, 4, 16)),
    ],
)
def test_the_ends_of_an_autoformer_space(name: str, smallest: Any, largest: Any) -> None:
    space = load(name)
    for width, heads, ratio, layers in (smallest, largest):
        assert parameters(space, vision(width, [heads] * layers, [ratio] * layers)) == numel(
            width, [heads] * layers, [ratio] * layers
        )


# --- HAT ------------------------------------------------------------------------------------------------------------

# configs/wmt14.en-de/subtransformer of github.com/mit-han-lab/hardware-aware-transformers, and "#Params (M)" of its
# README, embeddings and head left out: width, inner widths in 1,024, heads, and layers of the encoder that are read.
TRANSLATORS = {
    "raspberrypi@3.5s": (25.22, 512, "133222", "3", "484448", "8", "8", "1"),
    "raspberrypi@6.9s": (48.33, 512, "333333", "22332", "848888", "88848", "48888", "12221"),
    "titanxp@57.1ms": (30.47, 512, "333333", "3", "488888", "8", "8", "2"),
    "titanxp@91.2ms": (35.72, 512, "333333", "33", "488488", "88", "88", "12"),
    "titanxp@126.0ms": (40.97, 512, "333333", "333", "448884", "888", "488", "122"),
    "titanxp@146.7ms": (51.20, 640, "333333", "333", "488844", "888", "488", "122"),
    "titanxp@208.1ms": (49.38, 512, "333333", "22333", "848884", "88848", "48888", "12221"),
}
MEMORIES = {"1": "encoded", "2": "last_two", "3": "last_three"}


@pytest.mark.parametrize("name", TRANSLATORS)
def test_hat_translators_have_their_published_parameters(name: str) -> None:
    millions, width, encoder, decoder, own, decoding, crossing, read = TRANSLATORS[name]
    values: dict[str, Any] = {"dims.encoder_width": width, "dims.decoder_width": width}
    for number, (hidden, heads) in enumerate(zip(encoder, own, strict=True)):
        at = f"graph[2].body[{number}]"
        values |= {f"{at}.channel.hidden": 1024 * int(hidden), f"{at}.mixer.heads": int(heads)}
    values["graph[10].times"] = len(decoder)
    for number, (hidden, self, cross, memory) in enumerate(zip(decoder, decoding, crossing, read, strict=True)):
        at = f"graph[10].body[{number}]"
        values |= {
            f"{at}[0].body.heads": int(self),
            f"{at}[1].body.heads": int(cross),
            f"{at}[1].body.memory": MEMORIES[memory],
            f"{at}[2].body.hidden": 1024 * int(hidden),
        }
    embeddings = 2 * 32768 * width
    assert round((parameters(load("hat"), values) - embeddings) / 1e6, 2) == millions


# --- LTS ------------------------------------------------------------------------------------------------------------

# tasks/text_generation of github.com/microsoft/archai: "Non-Embedding Parameters (M)", width, inner width, layers,
# heads.
GALLERY = [
    (1.06, 128, 768, 4, 4), (2.08, 192, 960, 4, 4), (3.13, 320, 576, 4, 2), (3.95, 320, 896, 4, 4),
    (5.13, 384, 896, 4, 4), (6.44, 448, 896, 4, 2), (7.41, 320, 640, 9, 2), (8.23, 320, 640, 10, 2),
    (9.46, 576, 896, 4, 8), (10.65, 768, 192, 4, 2), (13.32, 384, 960, 10, 4), (16.04, 576, 832, 7, 8),
    (18.97, 704, 512, 7, 2), (20.96, 704, 448, 8, 2), (24.83, 768, 768, 7, 2), (26.89, 768, 960, 7, 8),
    (30.07, 704, 960, 9, 2), (33.24, 960, 960, 6, 4), (40.34, 896, 704, 9, 8), (49.85, 960, 960, 9, 2),
]  # fmt: skip


def test_the_gallery_of_lightweight_decoders_has_its_published_parameters() -> None:
    space, wide = load("gpt_lts"), load("gpt_lts", set={"graph.layers.body.channel.where": "hidden > 0"})
    narrow = 0
    for millions, width, hidden, layers, heads in GALLERY:
        values: dict[str, Any] = {"dims.width": width, "graph[2].times": layers}
        for number in range(layers):
            at = f"graph[2].body[{number}]"
            values |= {f"{at}.mixer.heads": heads, f"{at}.channel.hidden": hidden}
        keeps = hidden >= int(1.7 * width)  # models that were published later do not keep the paper's rule
        narrow += not keeps
        found = parameters(space if keeps else wide, values)
        assert round((found - (50257 + 1024) * width) / 1e6, 2) == millions
    assert narrow == 11


# --- HW-GPT-Bench ---------------------------------------------------------------------------------------------------


GPT_2 = {"hw_gpt_m": (1024, 354_823_168), "hw_gpt_l": (1280, 774_030_080)}  # medium and large: width, parameters


@pytest.mark.parametrize("name", GPT_2)
def test_the_largest_member_is_gpt_2_with_rope_and_a_head_of_its_own(name: str) -> None:
    width, gpt_2 = GPT_2[name]
    space = load(name)
    found = parameters(space, {**space.default().values, "dims.width": width})
    assert found == gpt_2 + 2 * 50254 * width - (50257 + 1024) * width
