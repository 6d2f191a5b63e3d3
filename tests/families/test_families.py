"""Every family computes what `transformers` computes: logits, decoding token by token, and weights there and back.

A family's cases stand in ``tests/families/<family>.yaml`` (docs/families.md): ``small`` is the configuration that they
share, ``cases`` what each changes.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from copy import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from archspec.errors import SpecError
from archspec.family import Imported, families, family
from archspec.source import read
from compiler.checkpoint import export_checkpoint, import_checkpoint
from compiler.correspondence import Correspondence, fill
from compiler.decoding import Decoding
from compiler.initialise import allocate
from compiler.logical import logical
from compiler.model import compile

HERE = Path(__file__).parent
FILES = {name: read(HERE / f"{name}.yaml") for name in families() if (HERE / f"{name}.yaml").exists()}
CASES = [(name, case) for name, file in FILES.items() for case in file["cases"]]
CAUSAL = [(name, case) for name, case in CASES if FILES[name].get("causal", True)]
OUTGROWN = [(name, case) for name, file in FILES.items() for case in file.get("outgrown", ())]
every = pytest.mark.parametrize(("name", "case"), CASES)
BATCH, LENGTH = 3, 20


def plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


@cache
def config_of(name: str, case: str) -> Any:
    file = FILES[name]
    cls = getattr(transformers, file["config"]) if "config" in file else None
    given = plain({**file["small"], **(file["cases"][case] or {})})
    if cls is None:
        cls = type(transformers.AutoConfig.for_model(family(name).model_type))
    config = cls(**given)
    if "untied" in file:
        config.tie_word_embeddings = given.get("tie_word_embeddings", True)
    return config


@cache
def theirs(name: str, case: str) -> nn.Module:
    """The reference with noise on all that is stored and not computed, so that no bias is zero and no gain one."""
    torch.manual_seed(0)
    config, head = copy(config_of(name, case)), FILES[name].get("untied")
    apart = head is not None and not config.tie_word_embeddings
    if apart:
        config.tie_word_embeddings = True
    model = getattr(transformers, FILES[name].get("model", family(name).architecture))(config)
    if apart:
        model.get_submodule(head).weight = nn.Parameter(model.get_submodule(head).weight.detach().clone())
    generator, stored = torch.Generator().manual_seed(0), model.state_dict()
    buffers = [(key, value) for key, value in model.named_buffers() if key in stored and value.is_floating_point()]
    kept = [value for key, value in buffers if not any(re.fullmatch(text, key) for text in family(name).skipped)]
    with torch.no_grad():
        # parameters without a gradient are tables that the configuration decides
        for tensor in [*(parameter for parameter in model.parameters() if parameter.requires_grad), *kept]:
            tensor.add_(torch.randn(tensor.shape, generator=generator) * FILES[name].get("noise", 0.05))
    return model.eval()  # type: ignore[no-any-return]


@cache
def imported(name: str, case: str) -> Imported:
    return family(name).expand(plain(config_of(name, case).to_dict()))


@cache
def ours(name: str, case: str) -> Any:
    found = imported(name, case)
    model = compile(found.spec, device="meta")
    allocate(model, device="cpu", dtype=torch.float32)
    state = theirs(name, case).state_dict()
    fill(model, found, {key: (lambda value=value: value) for key, value in state.items()}, name)
    return model.eval()


def ragged(name: str, case: str, more: int = 0) -> Tensor:
    """Which tokens are real, for samples of three lengths; ``more`` tokens than the file says."""
    length = FILES[name].get("length", LENGTH) + more
    if case in FILES[name].get("whole", ()):
        return torch.ones(BATCH, length, dtype=torch.bool)
    real = torch.arange(length) < torch.tensor([[length], [length // 2], [max(1, length - 3)]])
    if FILES[name].get("left", False):
        real[-1] = real[-1].flip(0)
    return real


@cache
def given(name: str, case: str) -> dict[str, Tensor]:
    """Our inputs by name, as the model takes them: ids, labels, which are real; shorter samples are padded."""
    spec = imported(name, case).spec
    generator = torch.Generator().manual_seed(1)
    tensors, carried = {}, {}
    for word, stream in spec.graph.inputs.items():
        real = ragged(name, case, 3 * (word == "source"))
        length = real.shape[1]
        tensors[word] = torch.randint(5, stream.width, (BATCH, length), generator=generator)
        for label, other in spec.interface.carried().get(word, {}).items():
            values = spec.interface.labels.get(label, 2)
            drawn = torch.randint(0, values, (BATCH, length), generator=generator)
            carried[other] = real if label == "valid" else drawn
        pad = FILES[name].get("pad")
        if pad is not None:
            tensors[word] = torch.where(real, tensors[word], pad)
    return tensors | carried


THEIR_NAMES = {"tokens": "input_ids", "source": "input_ids", "target": "decoder_input_ids", "valid": "attention_mask",
               "source_valid": "attention_mask", "target_valid": "decoder_attention_mask",
               "segment": "token_type_ids", "global_attention": "global_attention_mask"}  # fmt: skip


@torch.no_grad()
def expected(name: str, case: str) -> Tensor:
    tensors = given(name, case)
    real = {key: value.long() if value.dtype == torch.bool else value for key, value in tensors.items()}
    named = {THEIR_NAMES[key]: value for key, value in real.items()}
    if "tokens" in tensors and FILES[name].get("mask", True):
        named.setdefault("attention_mask", valid(name, case).long())
    cached = {"use_cache": False} if FILES[name].get("causal", True) else {}
    if not FILES[name].get("alone", False):
        return theirs(name, case)(**named, **cached).logits  # type: ignore[no-any-return]
    samples = []
    for sample, seen in enumerate(valid(name, case)):
        one = {key: value[sample : sample + 1, seen] for key, value in named.items()}
        logits = theirs(name, case)(**one, **cached).logits[0]
        samples.append(logits.new_zeros(len(seen), logits.shape[-1]).masked_scatter(seen[:, None], logits))
    return torch.stack(samples)


def valid(name: str, case: str) -> Tensor:
    """Which places of the output count."""
    tensors = given(name, case)
    known = next((tensors[word] for word in ("target_valid", "valid") if word in tensors), None)
    if known is not None:
        return known
    if not FILES[name].get("mask", True) or "target" in tensors:
        return torch.ones(BATCH, FILES[name].get("length", LENGTH), dtype=torch.bool)
    return ragged(name, case)


@every
@torch.no_grad()
def test_logits_are_those_of_transformers(name: str, case: str) -> None:
    wanted, found = expected(name, case), ours(name, case)(*given(name, case).values())
    found = next(iter(found.values())) if isinstance(found, dict) else found
    assert found.shape[:2] == wanted.shape[:2]
    count, shown = min(found.shape[-1], wanted.shape[-1]), valid(name, case)
    assert wanted[shown].std() > 0.05  # the comparison is of something
    torch.testing.assert_close(found[shown][:, :count], wanted[shown][:, :count], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "case"), [one for one in CAUSAL if one not in OUTGROWN])
@torch.no_grad()
def test_decoding_token_by_token_is_the_full_pass(name: str, case: str) -> None:
    spec, tensors = imported(name, case).spec, given(name, case)
    causal = next(word for word, stream in spec.graph.inputs.items() if stream.causal)
    own = spec.interface.carried()[causal]
    source = {key: value for key, value in tensors.items() if key != causal and key not in own.values()}
    for word in own.values():
        if word.endswith("valid"):
            tensors = {**tensors, word: torch.ones_like(tensors[word])}
    whole = ours(name, case)(*tensors.values())
    decoding, found = Decoding(ours(name, case), source=source), []
    length = tensors[causal].shape[1]
    for size in [length // 2, *[1] * (length - length // 2 - 2), 2]:
        found.append(decoding(tensors[causal][:, decoding.position : decoding.position + size]))
    torch.testing.assert_close(torch.cat(found, dim=1), whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("name", "case"), OUTGROWN)
@torch.no_grad()
def test_decoding_beyond_the_trained_length_is_that_of_transformers(name: str, case: str) -> None:
    """Where rotations depend on the length, keys stay as they were turned: the full pass turns them all anew."""
    tokens = given(name, case)["tokens"]
    cut = FILES[name].get("length", LENGTH) // 2
    decoding, cache = Decoding(ours(name, case)), None
    for piece in (tokens[:, :cut], *tokens[:, cut:].split(1, dim=1)):
        known = theirs(name, case)(piece, past_key_values=cache, use_cache=True)
        cache = known.past_key_values
        torch.testing.assert_close(decoding(piece), known.logits, atol=1e-4, rtol=0)


@every
def test_weights_come_back_as_they_were(name: str, case: str) -> None:
    state = theirs(name, case).state_dict()
    mapping = Correspondence(imported(name, case), ours(name, case))
    found = {key: read() for key, read in mapping.exported()}
    tied = {key for key in state.keys() - found.keys()
            if any(state[key].data_ptr() == state[other].data_ptr() for other in found if other in state)}  # fmt: skip
    lacking = [key for key in state.keys() - found.keys() - tied if not mapping.ignores(key)]
    assert not lacking
    assert found.keys() <= state.keys()
    for key, value in found.items():
        assert value.dtype == state[key].dtype and torch.equal(value, state[key]), key


@every
@torch.no_grad()
def test_tensors_that_are_missing_extra_or_misshapen_are_named(name: str, case: str) -> None:
    state = dict(theirs(name, case).state_dict())
    places = [value.data_ptr() for value in state.values()]
    key = next(key for key, value in reversed(state.items()) if value.ndim == 2 and places.count(value.data_ptr()) == 1)
    found = imported(name, case)
    model = compile(found.spec, device="meta")
    allocate(model, device="cpu", dtype=torch.float32)
    for changed in ({**state, "no.such.tensor": state[key]}, {k: v for k, v in state.items() if k != key},
                    {**state, key: state[key][:, :-1]}):  # fmt: skip
        with pytest.raises(SpecError) as error:
            fill(model, found, {k: (lambda v=v: v) for k, v in changed.items()}, "checkpoint")
        wrong = "no.such.tensor" if "no.such.tensor" in changed else key
        assert wrong in str(error.value)


@torch.no_grad()
def test_a_tensor_that_checkpoints_may_leave_out_is_what_the_family_says() -> None:
    found, state = imported("bart", "plain"), dict(theirs("bart", "plain").state_dict())
    del state["final_logits_bias"]
    model = compile(found.spec, device="meta")
    allocate(model, device="cpu", dtype=torch.float32)
    logical(model)["head.fixed.bias"].fill_(1.0)
    fill(model, found, {key: (lambda value=value: value) for key, value in state.items()}, "checkpoint")
    assert not logical(model)["head.fixed.bias"].any()


@pytest.mark.parametrize(("name", "case"), [("llama", "tied"), ("t5", "plain")])
def test_tensors_that_are_tied_and_differ_are_refused(name: str, case: str) -> None:
    found, state = imported(name, case), dict(theirs(name, case).state_dict())
    state["lm_head.weight"] = state["lm_head.weight"] + 1
    model = compile(found.spec, device="meta")
    allocate(model, device="cpu", dtype=torch.float32)
    with pytest.raises(SpecError, match=r"lm_head.weight is not \S+.weight, to which it is tied"):
        fill(model, found, {key: (lambda value=value: value) for key, value in state.items()}, "checkpoint")


@every
def test_what_a_configuration_leaves_out_is_filled_in_as_transformers_does(name: str, case: str) -> None:
    said = {**FILES[name]["small"], **(FILES[name]["cases"][case] or {})}
    assert family(name).expand(plain(said)).spec.full == imported(name, case).spec.full


@pytest.mark.parametrize("name", FILES)
def test_what_transformers_writes_is_read_and_what_we_write_transformers_loads(name: str, tmp_path: Path) -> None:
    wanted: Any = theirs(name, next(iter(FILES[name]["cases"])))
    wanted.save_pretrained(tmp_path / "theirs")
    export_checkpoint(import_checkpoint(tmp_path / "theirs"), tmp_path / "ours")
    back, report = type(wanted).from_pretrained(tmp_path / "ours", output_loading_info=True)
    computed = {key for key in wanted.state_dict() if any(re.fullmatch(form, key) for form in family(name).skipped)}
    assert report.pop("missing_keys") <= computed
    assert not any(report.values())
    assert back.state_dict().keys() == wanted.state_dict().keys()
    for key in wanted.state_dict().keys() - computed:
        assert torch.equal(back.state_dict()[key], wanted.state_dict()[key]), key


@pytest.mark.parametrize("name", FILES)
@torch.no_grad()
def test_tensors_of_a_model_without_its_head_are_known(name: str) -> None:
    case, prefix = next(iter(FILES[name]["cases"])), family(name).prefix
    mapping = Correspondence(imported(name, case), ours(name, case))
    for key in theirs(name, case).state_dict():
        assert mapping.find(key.removeprefix(prefix)) == mapping.find(key)


@pytest.mark.parametrize(
    ("name", "field"), [(name, field) for name in FILES for field in FILES[name].get("refused", ())]
)
def test_what_cannot_be_said_is_refused_by_name(name: str, field: str) -> None:
    change = FILES[name]["refused"][field]
    said = {**FILES[name]["small"], **(change if isinstance(change, dict) else {field: change})}
    with pytest.raises(SpecError) as error:
        family(name).expand(plain(said))
    assert [problem.path for problem in error.value.problems] == [field]


ODD: list[Any] = [
    None, True, -1, 0, 3, -2.5, 1e400, 10**30, "x", "\0", [], [1], ["x"], [None], [[1]], {}, {"a": 1},
    {"rope_type": "linear", "factor": "x"}, {"rope_type": "yarn", "factor": 0}, {"__float__": "x"}, {"__float__": [1]},
]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_odd_values_of_fields_are_said_or_refused(name: str) -> None:
    for number, field in enumerate([*family(name).config, *family(name).only], sorted(FILES).index(name)):
        with suppress(SpecError):
            family(name).expand(plain({**FILES[name]["small"], field: ODD[number % len(ODD)]}))


@pytest.mark.parametrize("name", [name for name in FILES if family(name).aliases])
def test_fields_are_known_by_all_their_names(name: str) -> None:
    config = config_of(name, next(iter(FILES[name]["cases"])))
    known = family(name)
    assert dict(type(config).attribute_map).items() <= known.aliases.items()
    said = plain(config.to_dict())
    for alias, field in known.aliases.items():
        assert known.expand({alias if key == field else key: value for key, value in said.items()}).config == (
            known.expand(said).config
        )


@pytest.mark.parametrize("name", FILES)
def test_every_field_of_the_configuration_is_accounted_for(name: str) -> None:
    known = family(name)
    cls = type(config_of(name, next(iter(FILES[name]["cases"]))))
    defaults = plain(cls().to_dict())
    accounted = known.config.keys() | known.only.keys() | known.ignored
    assert not defaults.keys() - accounted
    assert not known.config.keys() - known.used, "fields that decide nothing belong under ignored"
    for field in known.config.keys() & defaults.keys() - set(FILES[name].get("computed", ())):
        assert known.config[field] == defaults[field], field


@pytest.mark.parametrize("name", families())
def test_every_family_has_cases(name: str) -> None:
    assert name in FILES
