"""What encoders' configurations say that cannot be said is refused by the field's name."""

from typing import Any

import pytest

from archspec.errors import SpecError
from archspec.family import family

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("fnet", {"use_tpu_fourier_optimizations": True}, "use_tpu_fourier_optimizations"),
    ("nystromformer", {"inv_coeff_init_option": True}, "inv_coeff_init_option"),
    ("deberta_v2", {"attention_head_size": 32}, "attention_head_size"),
    ("deberta_v2", {"relative_attention": True}, "pos_att_type"),
    ("deberta_v2", {"norm_rel_ebd": "layer_norm"}, "norm_rel_ebd"),
    ("deberta_v2", {"legacy": False, "embedding_size": 128}, "embedding_size"),
    ("deberta_v2", {"conv_kernel_size": 3, "conv_act": "mish"}, "conv_act"),
    ("longformer", {"attention_window": [512, 512]}, "attention_window"),
    ("longformer", {"attention_window": 511}, "attention_window"),
    ("big_bird", {"attention_type": "dense"}, "attention_type"),
    ("big_bird", {"is_decoder": True}, "is_decoder"),
    ("funnel", {"block_repeats": [2, 1, 1]}, "block_repeats"),
    ("funnel", {"block_repeats": [1, 1]}, "block_repeats"),
    ("convbert", {"hidden_size": 774, "num_attention_heads": 12, "head_ratio": 2}, "hidden_size"),
]


@pytest.mark.parametrize(("name", "config", "field"), REFUSED)
def test_what_cannot_be_said_is_named(name: str, config: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError) as error:
        family(name).expand(config)
    assert field in str(error.value)
