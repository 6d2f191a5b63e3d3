"""The configuration that a spec was made of is found again, and what is written by hand `transformers` loads.

Found is a configuration of equal expansion: of families that look alike, it may be another one's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from typer.testing import CliRunner

import compiler
from archc.main import app
from archspec.errors import SpecError
from archspec.family import families, family, family_of
from archspec.recognition import recognise
from archspec.recognition.forms import differences, form
from archspec.source import read
from archspec.spec import Spec, load, loads
from compiler.checkpoint import export_checkpoint, import_checkpoint

HERE = Path(__file__).parent
FILES = {name: read(HERE / f"{name}.yaml") for name in families() if (HERE / f"{name}.yaml").exists()}
FIRST = [(name, next(iter(file["cases"]))) for name, file in FILES.items()]
MORE = [
    ("llama", "grouped"), ("llama", "wide_heads"), ("llama", "tied"), ("llama", "linear"), ("llama", "llama3"),
    ("llama", "dynamic"), ("llama", "yarn"), ("llama", "yarn_factor"), ("llama", "longrope"),
    ("gemma3_text", "pattern"), ("gemma3_text", "types"),
]  # fmt: skip
REFUSED: dict[str, list[tuple[str, str]]] = {
    "a list decides how many layers there are, and of one sort alone there can be none": [("zamba2", "plain")],
    "three fields or more have to change at once before anything gets nearer": [
        ("qwen2", "upper_windows"), ("qwen2", "all_windows"), ("qwen2", "types"), ("gpt_neox", "sequential"),
        ("falcon", "alibi_sequential"), ("jamba", "sparse"), ("opt", "untied"), ("deberta_v2", "words"),
        ("deberta_v2", "content"), ("deberta_v2", "absolute"), ("deberta_v2", "scaled"),
    ],
    "a list of numbers has another length, or one for each layer": [
        ("funnel", "wide"), ("funnel", "repeats"), ("funnel", "pooled"), ("funnel", "flat"), ("longformer", "windows"),
    ],
    "an entry of a mapping that the default does not have": [
        ("dbrx", "clipped"), ("dbrx", "raw"), ("mpt", "six_heads"), ("mpt", "scaled"), ("modernbert", "scaled"),
        ("modernbert_decoder", "scaled"),
    ],
}  # fmt: skip
"""Cases that are not found yet, of those that were tried."""
ALIKE = {"gptj": "codegen", "phi3": "llama"}
"""Families whose first case another one says as well."""


def plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def spec_of(name: str, case: str) -> Spec:
    file = FILES[name]
    given = plain({**file["small"], **(file["cases"][case] or {})})
    cls = getattr(transformers, file["config"]) if "config" in file else None
    cls = cls or type(transformers.AutoConfig.for_model(family(name).model_type))
    return family(name).expand(plain(cls(**given).to_dict())).spec


NOT_YET = [one for cases in REFUSED.values() for one in cases]
QUICK = ("llama", "gpt2", "bert", "t5", "mixtral", "mamba", "gemma2", "deepseek_v3", "qwen3")
FOUND = [one if one in MORE[:3] or one[0] in QUICK and one in FIRST else pytest.param(*one, marks=pytest.mark.slow)
         for one in [*FIRST, *MORE] if one not in NOT_YET]  # fmt: skip


@pytest.mark.parametrize(("name", "case"), FOUND)
def test_the_configuration_of_a_spec_is_found(name: str, case: str) -> None:
    spec = spec_of(name, case)
    config = recognise(spec)
    found = family_of(config).expand(plain(config))
    assert found.spec.graph.digest("layout") == spec.graph.digest("layout") or found.family.name == ALIKE[name]
    assert all(one.what == "free" for one in differences(form(found.spec), form(spec)))
    assert config["architectures"] == [found.family.architecture]
    assert found.family.name == ALIKE.get(name, name)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "case"), NOT_YET)
def test_what_is_not_found_yet_is_refused(name: str, case: str) -> None:
    with pytest.raises(SpecError, match="is no model of a known family"):
        recognise(spec_of(name, case))


LLAMA = """
archspec: 1
name: small-llama
interface: {kind: causal_lm, vocab: 211, length: 96}
dims: {d: 48, n: 6}
blocks:
  block:
    kind: transformer_layer
    norm: {kind: rms_norm, eps: 1e-5}
    mixer: {kind: attention, heads: n, kv_heads: n / 3, position: {kind: rope, theta: 50000}}
    channel: {kind: glu, hidden: 8 * d / 3}
graph:
  - {name: embed, kind: token_embedding, width: d}
  - {name: trunk, kind: repeat, times: 4, body: block}
  - {name: last, kind: rms_norm, eps: 1e-5}
  - {name: predict, kind: lm_head}
"""
RESIDUALS = """
archspec: 1
name: otherwise-written
interface: {kind: causal_lm, vocab: 211, length: 96}
blocks:
  mix: {kind: residual, norm: rms_norm, body: {kind: attention, heads: 4, head_width: 16, bias: true, position: rope}}
  feed: {kind: residual, norm: rms_norm, body: {kind: glu, hidden: 96, activation: gelu_tanh}}
graph:
  - {kind: token_embedding, width: 48}
  - [{name: a, kind: mix}, {name: b, kind: feed}]
  - {name: more, kind: repeat, times: 2, body: [{name: mixing, kind: mix}, {kind: dropout, rate: 0.1}, {kind: feed}]}
  - {name: c, kind: mix}
  - {name: d, kind: feed}
  - {kind: rms_norm}
  - {kind: lm_head, tied: true}
"""
GPT2 = {"interface.vocab": 211, "interface.length": 64, "dims.width": 48, "dims.heads": 4, "graph.layers.times": 3,
        "blocks.layer.channel.activation": "relu"}  # fmt: skip


def moved(spec: Spec) -> Any:
    """A model with other weights than it begins with, so that no bias is zero."""
    torch.manual_seed(0)
    model = compiler.compile(spec)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


@torch.no_grad()
def same(model: Any, folder: Path) -> Any:
    """Asks that `transformers` loads a checkpoint and computes what a model does; gives what it has loaded."""
    loaded, report = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values())
    tokens = torch.randint(0, model.spec.interface.vocab, (2, 17))
    torch.testing.assert_close(model(tokens), loaded.eval()(tokens).logits, atol=1e-5, rtol=0)
    return loaded


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        (loads(LLAMA), "llama"),
        (loads(RESIDUALS), None),
        (load("examples/zoo/language/gpt2.yaml", set=GPT2), "gpt2"),
    ],
    ids=["llama", "residuals", "gpt2"],
)
def test_a_spec_written_by_hand_loads_with_transformers(spec: Spec, kind: str | None, tmp_path: Path) -> None:
    model = moved(spec)
    compiler.save(model, tmp_path / "ours")
    words = ["export", str(tmp_path / "ours"), "--to", "transformers", "-o", str(tmp_path / "theirs")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "theirs" / "config.json").read_text())
    loaded = same(model, tmp_path / "theirs")
    assert config["architectures"] == [type(loaded).__name__]
    assert config["dtype"] == "float32" and config["model_type"] == loaded.config.model_type
    assert kind in (None, config["model_type"])


def test_what_was_imported_and_then_changed_is_of_its_family_still(tmp_path: Path) -> None:
    small = {"vocab_size": 99, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "eos_token_id": 7,
             "num_attention_heads": 4, "num_key_value_heads": 2, "layer_types": ["full_attention"] * 2}  # fmt: skip
    transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**small)).save_pretrained(tmp_path / "theirs")
    imported: Any = import_checkpoint(tmp_path / "theirs")
    (tmp_path / "spec.yaml").write_text(family("qwen2").expand(small).text)
    model = moved(load(tmp_path / "spec.yaml", set={"graph.layers.times": 3, "blocks.layer.channel.hidden": 64}))
    model.beside = imported.beside
    export_checkpoint(model, tmp_path / "back")
    loaded = same(model, tmp_path / "back")
    assert (loaded.config.num_hidden_layers, loaded.config.intermediate_size, loaded.config.eos_token_id) == (3, 64, 7)


def test_what_no_family_says_is_refused_with_the_nearest_and_where_it_differs() -> None:
    spec = loads(LLAMA.replace("hidden: 8 * d / 3", "hidden: 8 * d / 3, linears: {down: {kind: low_rank, rank: 4}}"))
    with pytest.raises(SpecError) as error:
        recognise(spec)
    (problem,) = error.value.problems
    assert problem.cause.startswith("small-llama is no model of a known family; nearest is llama, which has")
    assert problem.path == "residual.body.glu.down.linear.kind"


def test_equal_forms_have_equal_names_place_by_place() -> None:
    spec = loads(LLAMA)
    found = family("llama").expand(recognise(spec)).spec
    names = dict(zip(form(spec).named(), form(found).named(), strict=True))
    assert names["embed"] == "words" and names["trunk.2.mixer.body"] == "layers.2.mixer.body"


def test_an_older_configuration_that_was_changed_is_found_in_todays_words() -> None:
    old = {"model_type": "llama", "vocab_size": 99, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2,
           "num_attention_heads": 4, "rope_theta": 5000.0, "rope_scaling": {"type": "linear", "factor": 2.0},
           "bos_token_id": 3}  # fmt: skip
    config = recognise(family("llama").expand({**old, "num_hidden_layers": 5}).spec, old)
    assert config["num_hidden_layers"] == 5 and config["bos_token_id"] == 3
    told = transformers.LlamaConfig(**config).rope_parameters
    assert told == {"rope_type": "linear", "factor": 2.0, "rope_theta": 5000.0}
