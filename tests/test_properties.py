"""What must hold for every kind and every example; a kind joins by being registered.

A kind may say in ``exempt`` which of these does not hold for it, and why; then it must really not hold for one of its
specs, and is not asked of the others that use it.
"""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import compiler.build
from archspec.canonical import text
from archspec.kind import REGISTRY
from archspec.kinds.threshold import share
from archspec.spec import Spec, load, loads
from archspec.streams import Stream
from compiler.flatten import flatten
from compiler.fold import fold
from compiler.model import compile
from compiler.modules.batch_norm import Statistics
from compiler.modules.threshold import Enter
from compiler.moving import move
from compiler.weights import load as load_model
from compiler.weights import save
from search.cost.operators import FORMULAS
from search.cost.price import price, resolve_lengths
from tests.models import inputs, nodes, perturbed, rates, runs, size_of, untraced
from tests.specs import example_files, in_its_places, kind_specs

KINDS = kind_specs()
FILES = example_files()
LARGEST = 3_000_000  # parameters of an example that is run with numbers; larger ones run on the meta device


@cache
def spec_of(case: str) -> Spec:
    return loads(KINDS[case]) if case in KINDS else load(FILES[case])


@cache
def count(case: str) -> int:
    return sum(p.numel() for p in compile(spec_of(case), device="meta").parameters())


@cache
def _model(case: str) -> Any:
    return perturbed(compile(spec_of(case)))


def model_of(case: str) -> Any:
    """A model with perturbed weights, as it comes from the compiler: in training mode."""
    return _model(case).train()


def given(case: str, batch: int = 2, length: int = 16, seed: int = 0) -> list[Tensor]:
    return inputs(spec_of(case), batch=batch, length=length, seed=seed)


SMALL = [*KINDS, *(name for name in FILES if count(name) <= LARGEST)]
ALL = [*KINDS, *FILES]
every = pytest.mark.parametrize("case", ALL)
small = pytest.mark.parametrize("case", SMALL)


def exempt(case: str, name: str) -> bool:
    """Whether one of a spec's kinds says that a property does not hold for it."""
    return any(name in node.kind.exempt for node in nodes(spec_of(case).graph))


def asked(cases: list[str], name: str) -> Any:
    return pytest.mark.parametrize("case", [case for case in cases if not exempt(case, name)])


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Bit for bit; auxiliary losses of nested bodies may be added up in another order."""
    equal = {name: torch.allclose if name == "loss" else torch.equal for name in a}
    return a.keys() == b.keys() and all(equal[name](a[name], b[name]) for name in a)


def close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", REGISTRY)
def test_every_kind_has_a_spec(kind: str) -> None:
    assert f"{kind}-0" in KINDS, f"say in tests/specs.py, or in the kind's example, how {kind} is used"


@every
def test_canonical_form_is_the_same_spec(case: str) -> None:
    spec = spec_of(case)
    again = loads(text(spec.canonical()))
    assert (again.full, again.structure) == (spec.full, spec.structure)
    assert again.canonical() == spec.canonical()


@small
@torch.no_grad()
def test_shapes_are_those_of_the_types(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run_node, wrong = compiler.build.run_node, []
    length = 0

    def checked(module: Any, node: Any, *rest: Any) -> Any:
        found = run_node(module, node, *rest)
        for port, tokens in found.items():
            stream = node.outputs[port]
            sizes = [] if not stream.spans else [0] if share(stream) is not None else [size_of(stream.count, length)]
            sizes += [stream.width] if stream.content == "features" else []
            shape = list(tokens.features.shape[1:])
            if ".experts" in node.path or share(stream) is not None:  # as many tokens as chose the expert, or entered
                shape, sizes = shape[-1:], sizes[-1:]
            if shape != sizes and shape[:1] + shape[2:] != sizes:  # heads lie between tokens and width
                wrong.append(f"{node.path} {node.name}.{port} is {list(tokens.features.shape)}, its type {stream}")
        return found

    run = untraced(spec_of(case), model_of(case))
    monkeypatch.setattr(compiler.build, "run_node", checked)
    for batch, length in ((1, 8), (3, 16)):
        run(given(case, batch, length), training=False)
    assert not wrong


def unreached(case: str) -> list[str]:
    """Parameters that get no gradient."""
    model = perturbed(compile(spec_of(case)))
    move(model, 0.5)
    for module, name in rates(model):
        setattr(module, name, 0.0)
    outputs = runs(model, given(case, batch=4))
    generator = torch.Generator().manual_seed(1)
    sum((out * torch.randn(out.shape, generator=generator)).sum() for out in outputs.values()).backward()
    return [name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]


@torch.no_grad()
def looks_ahead(case: str) -> list[str]:
    """Outputs of which a part changed that comes before the changed token."""
    spec, model = spec_of(case), model_of(case).eval()
    whole = given(case)
    before = runs(model, whole)
    found = []
    for place, (name, stream) in enumerate(spec.graph.inputs.items()):
        if not stream.causal:
            continue
        for at in (1, 7, 15):
            changed = list(whole)
            changed[place] = other_at(whole[place], stream, at)
            after = runs(model, changed)
            for out, type_ in spec.graph.types.items():
                if out in after and along(stream, type_) is not None:
                    parts = [split_at(one[out], type_, stream, at) for one in (before, after)]
                    assert not torch.equal(parts[0][1], parts[1][1]), f"{out} does not read {name}"
                    if not close(parts[0][0], parts[1][0]):
                        found.append(f"{out} before {at} reads {name}")
    return found


def along(stream: Stream, other: Stream) -> int | None:
    """Where a stream of one span has the causal axis of another."""
    time = next(axis for axis in stream.axes if axis.causal)
    return next(
        (place for place, axis in enumerate(other.axes) if (axis.name, axis.size) == (time.name, time.size)), None
    )


def other_at(tensor: Tensor, stream: Stream, at: int) -> Tensor:
    """An input with other tokens at one place of its causal axis."""
    place = 1 + (along(stream, stream) or 0)
    changed = tensor.clone().movedim(place, 0)
    changed[at] = (changed[at] + 1) % stream.width if stream.content == "ids" else changed[at] - 1
    return changed.movedim(0, place)


def split_at(out: Tensor, type_: Stream, stream: Stream, at: int) -> tuple[Tensor, Tensor]:
    """The part of an output before a place of the causal axis, and the part from there."""
    sizes = [size_of(axis.size, 16) for axis in type_.axes]
    grid, place = out.unflatten(1, sizes), along(stream, type_) or 0
    return grid.narrow(1 + place, 0, at), grid.narrow(1 + place, at, sizes[place] - at)


@torch.no_grad()
def mixes_samples(case: str) -> bool:
    model, whole = model_of(case).eval(), given(case, batch=3)
    together = runs(model, whole)
    apart = [runs(model, [tensor[place : place + 1] for tensor in whole]) for place in range(3)]
    return not all(close(together[name], torch.cat([one[name] for one in apart])) for name in together)


FAULTS = {"gradient": unreached, "causality": looks_ahead, "batch": mixes_samples}
"""What tells that a property does not hold, for those from which a kind may be exempt."""


@asked(SMALL, "gradient")
def test_gradient_reaches_every_parameter(case: str) -> None:
    assert not unreached(case)


def is_causal(case: str) -> bool:
    return any(stream.causal for stream in spec_of(case).graph.inputs.values())


@asked([case for case in SMALL if is_causal(case)], "causality")
def test_no_token_is_seen_before_its_time(case: str) -> None:
    assert not looks_ahead(case)


@asked(SMALL, "batch")
def test_samples_do_not_see_each_other(case: str) -> None:
    assert not mixes_samples(case)


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in REGISTRY for name in REGISTRY[kind].exempt if name in FAULTS]
)
def test_exemptions_are_real(kind: str, name: str) -> None:
    cases = [case for case in KINDS if any(node.kind.name_ == kind for node in nodes(spec_of(case).graph))]
    assert any(FAULTS[name](case) for case in cases if name != "causality" or is_causal(case))


@small
@torch.no_grad()
def test_traced_equals_untraced(case: str) -> None:
    model, tensors = model_of(case), given(case)
    run = untraced(spec_of(case), model)
    for training in (False, True):
        torch.manual_seed(0)
        expected = run(tensors, training=training)
        torch.manual_seed(0)
        assert same(runs(model.train(training), tensors), expected)


@small
@torch.no_grad()
def test_flat_equals_traced(case: str) -> None:
    model, tensors = model_of(case), given(case)
    flat = flatten(model)
    assert flat.state_dict(keep_vars=True).items() <= model.state_dict(keep_vars=True).items()
    for training in (True, False):
        torch.manual_seed(0)
        expected = runs(model.train(training), tensors)
        torch.manual_seed(0)
        assert same(runs(flat.train(training), tensors), expected)


@small
@torch.no_grad()
def test_folded_equals_traced(case: str) -> None:
    model, tensors = model_of(case).eval(), given(case)
    expected, found = runs(model, tensors), runs(fold(model), tensors)
    assert found.keys() == expected.keys()
    for name, out in expected.items():
        assert (out - found[name]).abs().max() <= 1e-4 * out.abs().max().clamp(min=1), name


@every
def test_meta_gives_shapes(case: str) -> None:
    spec, model = spec_of(case), compile(spec_of(case), device="meta")
    assert all(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
    for training in (False, True):
        outputs = runs(model.train(training), inputs(spec, batch=2, length=16, device="meta"))
        found = {name: out.shape for name, out in outputs.items()}
        for name, stream in spec.graph.types.items():
            if name in found and stream.content == "features":
                assert list(found[name]) == [2, *([size_of(stream.count, 16)] if stream.spans else []), stream.width]
        if case in SMALL:
            real = model_of(case).train(training)
            assert found == {name: out.shape for name, out in runs(real, given(case)).items()}
            assert model.state_dict().keys() == real.state_dict().keys()


@pytest.mark.parametrize("case", [*(case for case in KINDS if case.endswith("-0")), *FILES])
def test_cost_is_what_torch_counts(case: str) -> None:
    spec, model = spec_of(case), compile(spec_of(case).final, device="meta")
    cost = price(spec, batch=2, length=16, device="l4")
    tensors = inputs(spec, batch=2, length=resolve_lengths(spec, 16), device="meta")
    assert cost.parameters == sum(p.numel() for p in model.parameters())
    for training, flops in ((False, cost.forward), (True, cost.training_step)):
        with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
            outputs = [out for out in runs(model.train(training), tensors).values() if out.requires_grad]
            if training:
                torch.autograd.backward(outputs, [torch.empty_like(out) for out in outputs])
        assert flops == counter.get_total_flops()


@small
@torch.no_grad()
def test_modes_switch_after_compiling(case: str) -> None:
    model, tensors = model_of(case), given(case, batch=4)
    torch.manual_seed(0)
    first = runs(model, tensors)
    asleep = runs(model.eval(), tensors)
    assert same(asleep, runs(model, tensors))
    training = spec_of(case).graph.training
    assert not training & asleep.keys() and first.keys() >= training
    torch.manual_seed(0)
    assert same(runs(model.train(), tensors), first)
    random = any(True for _ in rates(model)) or any(isinstance(module, Statistics) for module in model.modules())
    equal = close if any(isinstance(module, Enter) for module in model.modules()) else torch.equal  # of other shapes
    alike = all(equal(first[name], asleep[name]) for name in asleep)
    assert alike != random


@small
@torch.no_grad()
def test_a_saved_model_comes_back(case: str, tmp_path: Any) -> None:
    model = model_of(case).eval()
    save(model, tmp_path)
    again = load_model(tmp_path).eval()
    assert same(model.state_dict(), again.state_dict())
    assert len(list(model.parameters())) == len(list(again.parameters()))
    assert same(runs(model, given(case)), runs(again, given(case)))


@small
@torch.no_grad()
def test_a_copy_is_the_same_model_on_its_own(case: str) -> None:
    model = model_of(case).eval()
    copy, before = deepcopy(model), runs(model, given(case))
    assert same(runs(copy, given(case)), before)
    assert same(runs(perturbed(copy, seed=1).train().eval(), given(case)), runs(copy, given(case)))
    assert same(runs(model, given(case)), before)


RATES = [
    (kind, name)
    for kind in REGISTRY
    for name in ("dropout", "drop_path", "rate")
    if name in REGISTRY[kind].model_fields
]


@pytest.mark.parametrize(("kind", "name"), RATES)
@torch.no_grad()
def test_every_rate_is_one_of_training(kind: str, name: str) -> None:
    spec = loads(next(in_its_places(REGISTRY[kind], **{name: 0.5})))
    model, tensors = perturbed(compile(spec)), inputs(spec, batch=8, length=16)
    assert not same(runs(model, tensors), runs(model, tensors))
    assert same(runs(model.eval(), tensors), runs(model, tensors))
    plain = perturbed(compile(loads(next(in_its_places(REGISTRY[kind], **{name: 0.0})))))
    assert same(runs(plain, tensors), runs(model, tensors))
