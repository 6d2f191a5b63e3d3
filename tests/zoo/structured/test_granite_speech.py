"""Granite-speech. Saon et al. 2025, arXiv 2505.08699; the published models' code is in transformers."""

from typing import Any

import pytest
import torch

from archspec.errors import SpecError
from archspec.spec import loads
from compiler.model import compile
from search.cost.price import price
from tests.models import inputs, perturbed
from tests.zoo.published import spec

pytestmark = pytest.mark.system("granite_speech")
TINY, ENCODER = "structured/granite_speech", "structured/granite_speech_encoder"
FRAMES, CONTEXT = 90, 20


def speech_model(**changes: Any) -> Any:
    return perturbed(compile(spec(TINY, **changes))).eval()


def theirs(**encoder: Any) -> Any:
    """Their encoder, and their configuration of all."""
    modeling = pytest.importorskip("transformers.models.granite_speech.modeling_granite_speech")
    from transformers.models.granite_speech import GraniteSpeechConfig

    projector = {
        "model_type": "blip_2_qformer", "hidden_size": 1024, "num_hidden_layers": 2, "num_attention_heads": 16,
        "intermediate_size": 4096, "encoder_hidden_size": 1024, "cross_attention_frequency": 1,
        "use_qformer_text_input": False,
    }  # fmt: skip
    text = {"model_type": "granite", "hidden_size": 2048}
    config = GraniteSpeechConfig(encoder_config=encoder, projector_config=projector, text_config=text)
    return modeling, config


def test_parameters_are_those_of_the_published_encoder_and_resampler() -> None:
    modeling, config = theirs()
    with torch.device("meta"):
        parts = modeling.GraniteSpeechCTCEncoder(config.encoder_config), modeling.GraniteSpeechEncoderProjector(config)
    counts = [sum(parameter.numel() for parameter in part.parameters()) for part in parts]
    assert price(spec(ENCODER), device="l4").parameters == sum(counts) == 310_505_770
    assert price(spec(ENCODER).part("listen"), device="l4").parameters == counts[1]


NAMES = {
    "input_linear": "taken.linear", "out": "symbols_.linear", "out_mid": "believed.linear",
    "ff1.pre_norm": "first.norm", "ff1.up_proj": "first.body.up", "ff1.down_proj": "first.body.down",
    "attn.pre_norm": "attend.norm", "attn.to_out": "attend.body.body.out",
    "attn.rel_pos_emb": "attend.body.body.position", "conv.norm": "filtered.norm",
    "conv.up_conv": "filtered.body.up.linear", "conv.batch_norm": "filtered.body.norm.norm",
    "conv.depth_conv.conv": "filtered.body.filter.convolution", "conv.down_conv": "filtered.body.down.linear",
    "ff2.pre_norm": "second.norm", "ff2.up_proj": "second.body.up", "ff2.down_proj": "second.body.down",
    "post_norm": "last",
}  # fmt: skip


def renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Their weights by our names; what gates and how distances run is the other way round there."""
    found = {}
    for name, value in state.items():
        path, _, last = name.rpartition(".")
        layer = ""
        if path.startswith("layers."):
            _, number, path = path.split(".", 2)
            layer = "lower.0." if number == "0" else "encoded.0."
        if last == "num_batches_tracked" or path in ("attn.to_q", "attn.to_kv"):
            continue
        if path == "attn.rel_pos_emb":
            value = value.flip(0)
        if path == "conv.up_conv":
            value = torch.cat(value.chunk(2)[::-1])
        if value.ndim == 3 and path != "conv.depth_conv.conv":
            value = value[..., 0]
        found[f"{layer}{NAMES[path]}.{last}"] = value
    for number, layer in enumerate(("lower.0.", "encoded.0.")):
        parts = [state[f"layers.{number}.attn.{name}.weight"] for name in ("to_q", "to_kv")]
        found[f"{layer}attend.body.body.qkv.weight"] = torch.cat(parts)
    return found


@torch.no_grad()
def test_the_encoder_computes_what_the_published_one_does() -> None:
    small = {"input_dim": 16, "hidden_dim": 32, "num_layers": 2, "num_heads": 4, "dim_head": 8, "output_dim": 30,
             "context_size": CONTEXT, "max_pos_emb": CONTEXT}  # fmt: skip
    modeling, config = theirs(**small)
    torch.manual_seed(0)
    reference = perturbed(modeling.GraniteSpeechCTCEncoder(config.encoder_config)).eval()
    for name, buffer in reference.named_buffers():
        if name.endswith("running_var"):
            buffer.abs_()
    ours: Any = compile(spec(TINY, dims__reach=CONTEXT)).eval()
    missing, unexpected = ours.load_state_dict(renamed(reference.state_dict()), strict=False)
    assert not unexpected
    assert not [name for name in missing if name.split(".")[0] in ("taken", "lower", "encoded", "symbols_", "believed")]
    frames = torch.randn(2, FRAMES, 16)
    expected = reference(frames).last_hidden_state
    assert expected.std() > 0.1
    torch.testing.assert_close(ours.entries["encode"](frames), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("frames", [15, 90, 100])
def test_a_window_of_15_frames_becomes_3_tokens(frames: int) -> None:
    found = spec(TINY, interface__inputs__frames={"axes": {"frame": frames}, "width": 16})
    speech = found.graph.node("speech").output
    windows = -(-frames // 15)
    assert (speech.count, speech.width) == (3 * windows, 48)
    model: Any = compile(found).eval()
    assert model.entries["listen"](torch.randn(2, frames, 32)).shape == (2, 3 * windows, 48)
    if frames % 15 == 0:
        assert speech.count == frames // 5


@torch.no_grad()
def test_a_window_is_resampled_alone() -> None:
    model = speech_model()
    encoded = torch.randn(1, FRAMES, 32)
    before = model.entries["listen"](encoded)
    encoded[:, 31] += 1  # in the third window
    moved = (model.entries["listen"](encoded) != before).any(-1)[0]
    assert moved.nonzero().flatten().tolist() == [6, 7, 8]


def test_attention_has_no_gradient_across_blocks() -> None:
    model: Any = perturbed(compile(spec(TINY, blocks__conformer="local", outputs={"lower": "lower"}))).eval()
    frames = torch.randn(1, FRAMES, 16, requires_grad=True)
    text = torch.zeros(1, 4, dtype=torch.int64)
    for place in (0, 19, 20, 59, 89):
        (grad,) = torch.autograd.grad(model(frames, text)[:, place].sum(), frames)
        read = grad.abs().sum(-1)[0] > 0
        assert torch.equal(read, torch.arange(FRAMES) // CONTEXT == place // CONTEXT)


@torch.no_grad()
def test_text_alone_is_the_language_model_without_adapters() -> None:
    model = speech_model()
    nothing = {"kind": "lora", "rank": 1, "scale": 0}  # a plain matrix where the other model has one with an adapter
    linears = {"query": nothing, "value": nothing}
    plain = {"kind": "attention", "heads": "heads", "kv_heads": 2, "position": "rope", "linears": linears}
    without: Any = compile(spec(TINY, blocks__decoder_layer__mixer=plain)).eval()
    state = {name: value for name, value in model.state_dict().items() if ".up." not in name or "mixer" not in name}
    state = {name: value for name, value in state.items() if ".down." not in name or "mixer" not in name}
    without.load_state_dict(state, strict=False)
    _, text = inputs(model.spec, batch=2, length=9)
    assert torch.equal(model.entries["read"](text), without.entries["read"](text))
    frames = torch.randn(2, FRAMES, 16)
    out = model(frames, text)
    assert torch.equal(out["text_logits"], model.entries["read"](text))
    assert not torch.allclose(out["logits"][:, 18:], out["text_logits"], atol=1e-2)
    model.get_submodule("heard.body.layers.0.mixer.body.query.up").weight.add_(1.0)
    assert torch.equal(model.entries["read"](text), out["text_logits"])  # adapters do not reach it
    assert not torch.allclose(model(frames, text)["logits"], out["logits"], atol=1e-2)


def test_adapters_are_all_that_speech_adds_to_the_language_model() -> None:
    whole = spec(TINY)
    heard, read = (price(whole.part(name), length=20).parameters for name in ("answer", "read"))
    assert heard == read  # one set of weights, adapters among them
    names = dict(compile(whole, device="meta").named_parameters())
    adapters = [name for name in names if name.startswith("heard") and (".up." in name or ".down." in name)]
    assert sum(names[name].numel() for name in adapters if "mixer" in name) == 2 * 4 * (48 + 48 + 48 + 24)


@torch.no_grad()
def test_what_is_said_is_read_before_the_text_and_text_in_its_order() -> None:
    model = speech_model()
    frames, text = torch.randn(1, FRAMES, 16), torch.arange(9)[None]
    before = model(frames, text)["logits"]
    changed = text.clone()
    changed[:, 4] = 99
    moved = (model(frames, changed)["logits"] != before).any(-1)[0]
    assert torch.equal(moved, torch.arange(18 + 9) >= 18 + 4)
    assert (model(frames + 1, text)["logits"] != before).any(-1).all()


def test_a_distance_without_one_axis_is_refused() -> None:
    text = (
        "archspec: 1\ninterface: {kind: backbone, inputs: {x: {axes: {row: 2, column: 3}, width: 8}}}\n"
        "graph: [{kind: attention, heads: 2, position: {kind: relative_key, reach: 4}}]\n"
    )
    with pytest.raises(SpecError, match="a distance needs one axis"):
        loads(text)
