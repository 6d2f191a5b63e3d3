"""A compiled model is an ordinary module to everything in torch that takes one."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.func import functional_call, vmap
from torch.utils._python_dispatch import TorchDispatchMode

from archspec.spec import load, loads
from compiler.model import compile

TEXT = """
archspec: 1
name: small
interface: {kind: causal_lm, vocab: 16, length: 32}
blocks:
  layer:
    kind: transformer_layer
    mixer: {kind: attention, heads: 2, position: rope}
    channel: {kind: mlp, ratio: 2}
    dropout: 0.1
graph:
  - {kind: token_embedding, width: 16}
  - {name: layers, kind: repeat, times: 12, body: layer}
  - rms_norm
  - {kind: lm_head, tied: true}
"""
TOKENS = torch.arange(12).view(2, 6)


def model(seed: int = 0, **options: Any) -> Any:
    return compile(loads(TEXT), seed=seed, **options)


def test_the_seed_decides_the_weights() -> None:
    a, b, c = model(), model(), model(seed=1)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.token_embedding.weight, c.token_embedding.weight)


def test_a_tied_head_has_the_embedding_as_its_weight() -> None:
    assert (found := model()).lm_head.weight is found.token_embedding.weight
    assert len(list(found.parameters())) == 1 + 12 * 8 + 1


def test_inputs_are_named() -> None:
    found = model().eval()
    assert torch.equal(found(tokens=TOKENS), found(TOKENS))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_weights_and_outputs_have_the_dtype(dtype: torch.dtype) -> None:
    found = model(dtype=dtype)
    assert {p.dtype for p in found.parameters()} == {dtype}
    assert found(TOKENS).dtype == dtype
    assert {n: t.dtype for n, t in found.state_dict().items()} == {
        n: t.dtype for n, t in model(dtype=dtype, device="meta").state_dict().items()
    }


class OnlyMeta(TorchDispatchMode):
    """Refuses every tensor that has storage."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        assert not isinstance(found, Tensor) or found.is_meta, func
        return found


def test_the_meta_device_allocates_nothing() -> None:
    with OnlyMeta():
        found = model(device="meta")
    assert all(tensor.is_meta for tensor in [*found.parameters(), *found.buffers()])


def test_deepcopy() -> None:
    found = model().eval()
    copy = deepcopy(found)
    assert torch.equal(copy(TOKENS), found(TOKENS))
    assert copy.lm_head.weight is copy.token_embedding.weight is not found.lm_head.weight
    assert copy.spec.full == found.spec.full


def test_functional_call() -> None:
    found, other = model().eval(), model(seed=1).eval()
    assert torch.equal(functional_call(found, dict(other.named_parameters()), (TOKENS,)), other(TOKENS))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap_over_stacked_copies() -> None:
    copies = [model(seed=seed).eval() for seed in range(3)]
    stacked = {
        name: torch.stack([copy.get_parameter(name) for copy in copies]) for name, _ in copies[0].named_parameters()
    }

    def run(parameters: Any) -> Tensor:
        return functional_call(copies[0], parameters, (TOKENS,))

    torch.testing.assert_close(vmap(run)(stacked), torch.stack([copy(TOKENS) for copy in copies]))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_gradients_for_each_sample() -> None:
    found = model().eval()
    parameters = dict(found.named_parameters())

    def loss(parameters: Any, tokens: Tensor) -> Tensor:
        return functional_call(found, parameters, (tokens[None],)).square().sum()

    each = vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, TOKENS)
    alone = torch.func.grad(loss)(parameters, TOKENS[1])
    for name in parameters:
        torch.testing.assert_close(each[name][1], alone[name], atol=1e-5, rtol=1e-4)


def test_export() -> None:
    found = model().eval()
    program = torch.export.export(found, (TOKENS,))
    torch.testing.assert_close(program.module()(TOKENS), found(TOKENS))


def test_compile_compiles_each_distinct_block_once() -> None:
    found = model()
    expected = found.eval()(TOKENS)
    compiled = []

    def count(graph: fx.GraphModule, inputs: list[Tensor]) -> Any:
        compiled.append(graph)
        return graph.forward

    torch._dynamo.reset()
    for block in found.layers.children():
        block.compile(backend=count, fullgraph=True)
    assert torch.equal(found(TOKENS), expected)
    assert len(compiled) == 1
    torch._dynamo.reset()


def test_several_outputs_come_by_name_and_those_of_training_only_in_training() -> None:
    found = compile(
        loads("""
        archspec: 1
        name: outputs
        interface: {kind: backbone, inputs: {x: {axes: {token: n}, width: 4}}}
        graph:
          - {name: a, from: x, kind: mlp, ratio: 2}
          - {name: b, from: x, when: training, kind: project, width: 3}
          - {name: c, from: x, kind: project, width: 2}
        outputs: {main: a, other: c, extra: b}
        """)
    )
    x = torch.randn(1, 5, 4)
    assert {name: tuple(out.shape) for name, out in found(x).items()} == {
        "main": (1, 5, 4),
        "other": (1, 5, 2),
        "extra": (1, 5, 3),
    }
    assert list(found.eval()(x)) == ["main", "other"]
    assert list(found.train()(x)) == ["main", "other", "extra"]


def test_balance_losses_come_in_training() -> None:
    found = compile(loads(TEXT.replace(
        "{kind: mlp, ratio: 2}", "{kind: mixture, experts: {count: 4, body: {kind: glu, hidden: 8}}}")))  # fmt: skip
    losses = found(TOKENS)["loss"]
    assert losses.shape == () and losses > 0
    assert isinstance(found.eval()(TOKENS), Tensor)


def test_a_model_is_a_graph_module() -> None:
    found = model()
    assert isinstance(found, fx.GraphModule)
    assert isinstance(found, nn.Module)
    assert [node.target for node in found.graph.nodes if node.op == "call_module"] == [f"layers.{n}" for n in range(12)]


def test_each_input_with_tokens_has_its_own_padding() -> None:
    found = compile(load("examples/seq2seq.yaml", set={"interface.padding": True})).eval()
    source, target = torch.randint(0, 256, (2, 30)), torch.randint(0, 256, (2, 20))
    seen, all_ = torch.arange(30)[None] < torch.tensor([[20], [30]]), torch.ones(2, 20, dtype=torch.bool)
    before = found(source, target, source_valid=seen, target_valid=all_)
    assert torch.equal(before, found(source.masked_fill(~seen, 7), target, source_valid=seen, target_valid=all_))
    assert not torch.allclose(before, found(source, target, source_valid=seen | True, target_valid=all_))
