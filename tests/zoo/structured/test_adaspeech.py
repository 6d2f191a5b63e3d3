"""AdaSpeech. Chen et al. 2021, arXiv 2103.00993."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.errors import SpecError
from archspec.source import parse
from compiler.model import compile
from search.freezing import Freezing, Frozen
from search.kinds import fields
from tests.models import inputs, perturbed
from tests.zoo.published import spec

pytestmark = pytest.mark.system("adaspeech")
TINY, BASE = "structured/adaspeech", "structured/adaspeech_base"
OTHERS = ["phonemes", "encoder", "utterance", "acoustic", "pitch", "heard", "decoder.**.body", "mel"]
LENGTHS = {"phonemes": 6, "frames": 15, "reference": 11}


def masked(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that adapt once the others are frozen."""
    freeze = [fields(Frozen, parse(f'parameters: "{pattern}"')) for pattern in OTHERS]
    Freezing(model, freeze, steps=10).at(0)
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def norms(model: nn.Module) -> list[str]:
    """Where the decoder's conditional norms stand."""
    return sorted({name.rsplit(".", 2)[0] for name, _ in model.named_parameters() if name.endswith("shift.weight")})


def test_the_mask_leaves_norm_maps_and_the_embedding() -> None:
    model = compile(spec(BASE), device="meta")
    adapting = masked(model)
    assert len(norms(model)) == 2 * 4 + 1
    assert set(adapting) == {"voice.weight"} | {f"{n}.{way}.weight" for n in norms(model) for way in ("scale", "shift")}
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert len(frozen) + len(adapting) == len(list(model.named_parameters()))


@torch.no_grad()
def test_a_speaker_is_about_5k_numbers() -> None:
    """With what the maps give for a speaker stored in plain norms, the decoder is the same for this speaker."""
    found = spec(BASE)
    model = compile(found, device="meta")
    plain = compile(spec(BASE, blocks__conditional={"kind": "layer_norm"}), device="meta")
    theirs = dict(model.named_parameters())
    stored = [p.numel() for name, p in plain.named_parameters() if name not in theirs]
    assert sum(stored) == 2 * 9 * 256
    assert sum(stored) + model.voice.weight.shape[1] == 4864

    tiny: Any = perturbed(compile(spec(TINY))).eval()
    stored_: Any = compile(spec(TINY, blocks__conditional={"kind": "layer_norm"})).eval()
    given = dict(zip(["text", "speaker", *"rpa"], inputs(tiny.spec, batch=1, length=LENGTHS), strict=True))
    state = dict(tiny.state_dict())
    voice = state["voice.weight"][given["speaker"]][0]
    for name in norms(tiny):
        state[f"{name}.weight"] = 1 + state.pop(f"{name}.scale.weight") @ voice
        state[f"{name}.bias"] = state.pop(f"{name}.shift.weight") @ voice
    stored_.load_state_dict(state)
    a, b = tiny(*given.values()), stored_(*given.values())
    torch.testing.assert_close(a["mel"], b["mel"], atol=1e-4, rtol=1e-4)


def test_adapting_changes_nothing_else() -> None:
    model = perturbed(compile(spec(TINY)))
    adapting = masked(model)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    given = inputs(model.spec, batch=2, length=LENGTHS)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    model(*given)["mel"].square().mean().backward()
    optimizer.step()
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == set(adapting)


def test_frames_are_the_phonemes_that_sound_in_them() -> None:
    model: Any = perturbed(compile(spec(TINY, outputs={"found": "expanded", "told": "pitched"}))).eval()
    given = inputs(model.spec, batch=2, length=LENGTHS)
    given[-1] = torch.tensor(
        [[0, 0, 1, 2, 2, 2, 3, 4, 5, 5, 5, 5, 5, 5, 5], [5, 4, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 0]]
    )
    out = model(*given)
    expected = torch.stack([row[places] for row, places in zip(out["told"], given[-1], strict=True)])
    assert torch.equal(out["found"], expected)


TEXT = """
archspec: 1
interface:
  kind: backbone
  inputs: {{x: {{axes: {{token: n}}, width: 8}}, c: {{{c}width: 4}}}}
graph: [{{name: normed, from: x, kind: {body}}}]
"""


def normed(text: str) -> Any:
    from archspec.spec import loads

    return perturbed(compile(loads(text))).eval()


@pytest.mark.parametrize("c", ["", "axes: {token: n}, "], ids=["a vector", "one for each token"])
@torch.no_grad()
def test_scale_and_shift_are_linear_in_the_condition(c: str) -> None:
    model = normed(TEXT.format(c=c, body="conditional_layer_norm, condition: c"))
    x, read = torch.randn(2, 5, 8), torch.randn(2, *([5] if c else []), 4)
    state = model.state_dict()

    def mapped(way: str) -> Tensor:
        out = read @ state[f"normed.{way}.weight"].T + state[f"normed.{way}.bias"]
        return out if c else out[:, None]

    expected = (1 + mapped("scale")) * F.layer_norm(x, (8,)) + mapped("shift")
    torch.testing.assert_close(model(x, read), expected)
    for parameter in model.parameters():
        parameter.zero_()
    torch.testing.assert_close(model(x, read), F.layer_norm(x, (8,)))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("conditional_layer_norm", "'condition'"),
        ("conditional_layer_norm, condition: nobody", "no stream is called 'nobody'"),
        ("conditional_layer_norm, condition: other", "one vector"),
        ("attention, heads: 2, qk_norm: {{kind: conditional_layer_norm, condition: c}}", "a norm that reads c"),
    ],
)
def test_a_condition_that_cannot_be_is_refused(body: str, said: str) -> None:
    text = TEXT.replace("c: {{", "other: {{axes: {{row: 3}}, width: 4}}, c: {{")
    with pytest.raises(SpecError, match=said):
        normed(text.format(c="", body=body.replace("{{", "{").replace("}}", "}")))


@pytest.mark.parametrize(("places", "said"), [("c", "places are ids"), ("i", "finished stream")])
def test_places_that_cannot_be_are_refused(places: str, said: str) -> None:
    text = TEXT.replace("token: n}}", "token: n}}, causal: token", 1) if places == "i" else TEXT
    text = text.replace("c: {{", "i: {{axes: {{token: n}}, vocab: 9}}, c: {{")
    with pytest.raises(SpecError, match=said):
        normed(text.format(c="", body="index_select").replace("from: x", f"from: [x, {places}]"))
