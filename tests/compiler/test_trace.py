"""Each distinct block is traced once; its copies share code and own their weights, rates and initial values."""

import builtins
import inspect

import pytest
import torch
from torch import nn

from archspec.errors import SpecError
from archspec.kinds.interface import READ
from archspec.spec import loads
from compiler.flatten import flatten
from compiler.model import compile
from compiler.modules.regularise import SampleDrop
from compiler.split import split

HEAD = """
archspec: 1
name: traced
interface: {kind: causal_lm, vocab: 16, length: 32}
blocks:
  mixer: {kind: attention, heads: 2, position: rope}
  channel: {kind: mlp, ratio: 2}
  layer: {kind: transformer_layer, mixer: mixer, channel: channel}
graph:
  - {kind: token_embedding, width: 16}
"""


def model(*nodes: str) -> nn.Module:
    return compile(loads(HEAD + "".join(f"  - {node}\n" for node in (*nodes, "lm_head"))))


def rounds(*nodes: str) -> list[nn.Module]:
    return list(model(*nodes).layers.children())


def test_twelve_rounds_share_one_class_and_one_graph() -> None:
    blocks = rounds("{name: layers, kind: repeat, times: 12, body: layer}")
    assert len({type(block) for block in blocks}) == 1
    assert len({id(block.graph) for block in blocks}) == 1
    parameters = [p for block in blocks for p in block.parameters()]
    assert len({id(p) for p in parameters}) == len({p.data_ptr() for p in parameters}) == 12 * 8


def test_rounds_that_differ_in_their_rates_share_too() -> None:
    layer = "{kind: transformer_layer, mixer: mixer, channel: channel, drop_path: 0.1 * (index + 1)}"
    blocks = rounds(f"{{name: layers, kind: repeat, times: 3, body: {layer}}}")
    assert len({type(block) for block in blocks}) == 1
    rates = [[m.rate for m in block.modules() if isinstance(m, SampleDrop)] for block in blocks]
    assert torch.allclose(torch.tensor(rates), torch.tensor([[0.1, 0.1], [0.2, 0.2], [0.3, 0.3]]))


def test_rounds_that_differ_in_their_initial_values_share_too() -> None:
    layer = "{kind: residual, body: channel, scale: {kind: layer_scale, init: {each: [0.1, 0.2]}}}"
    blocks = rounds(f"{{name: layers, kind: repeat, times: 2, body: {layer}}}")
    assert type(blocks[0]) is type(blocks[1])
    gains = [block.residual.scale.weight for block in blocks]
    assert [gain.unique().tolist() for gain in gains] == [torch.tensor([value]).tolist() for value in (0.1, 0.2)]


def test_rounds_of_another_structure_do_not_share() -> None:
    blocks = rounds(
        "{name: layers, kind: repeat, rounds: [layer, {kind: layer}, [layer, mixer], {kind: mlp, ratio: 3}]}"
    )
    classes = [type(block) for block in blocks]
    assert classes[0] is classes[1]
    assert len(set(classes)) == 3


def test_a_rate_of_zero_is_left_out_of_the_graph() -> None:
    layer = "{kind: transformer_layer, mixer: mixer, channel: channel, drop_path: 0.1 * index}"
    blocks = rounds(f"{{name: layers, kind: repeat, times: 3, body: {layer}}}")
    assert [any(isinstance(m, SampleDrop) for m in block.modules()) for block in blocks] == [False, True, True]
    assert type(blocks[1]) is type(blocks[2]) is not type(blocks[0])


def test_blocks_inside_blocks_share_one_graph() -> None:
    blocks = rounds("{name: layers, kind: repeat, times: 3, body: {name: inner, kind: repeat, times: 2, body: layer}}")
    inner = [block for outer in blocks for block in outer.inner.children()]
    assert len(inner) == 6
    assert len({type(block) for block in inner}) == len({type(block) for block in blocks}) == 1


def test_ties_inside_a_block_stay_in_its_copies() -> None:
    shared = "{name: inner, kind: loop, times: 2, body: layer, share: [mixer]}"
    blocks = rounds(f"{{name: layers, kind: repeat, times: 2, body: {shared}}}")
    for block in blocks:
        first, second = block.inner.children()
        assert first.mixer.body.qkv.weight is second.mixer.body.qkv.weight
        assert first.channel.body.up.weight is not second.channel.body.up.weight
    assert (
        blocks[0].inner.get_submodule("0").mixer.body.qkv.weight
        is not blocks[1].inner.get_submodule("0").mixer.body.qkv.weight
    )


def test_code_can_be_read() -> None:
    code = rounds("{name: layers, kind: repeat, times: 2, body: layer}")[0].code
    assert "self.mixer.body.qkv(" in code
    assert "self.mixer.body.attend(" in code
    assert len(code.splitlines()) < 50


WORDS = sorted(
    name
    for name in {*dir(builtins), *READ, "inputs", "operator"}
    if name.islower() and name[0] != "_" and name != "range"
)


@pytest.mark.parametrize("word", WORDS)
@torch.no_grad()
def test_an_input_keeps_its_name_or_is_refused(word: str) -> None:
    """Words that mean something to Python or torch.fx: as arguments of the model, of the flat one and of its step."""

    def made(name: str) -> str:
        inputs = (
            f"{name}: {{axes: {{token: n}}, width: 8, limit: 8, causal: token}}, y: {{axes: {{other: 3}}, width: 8}}"
        )
        nodes = f"{{from: {name}, kind: mlp, ratio: 2}}, {{kind: attention, heads: 2, memory: y}}"
        return f"archspec: 1\nname: one\ninterface: {{kind: backbone, inputs: {{{inputs}}}}}\ngraph: [{nodes}]\n"

    try:
        found = compile(loads(made(word)))
    except SpecError as error:
        assert word in READ and len(error.problems) == 1
        assert f"'{word}' is a word of compiled code" in str(error)
        return
    x, y = torch.randn(2, 6, 8), torch.randn(2, 3, 8)
    expected = compile(loads(made("tokens")))(x, y)
    for model in (found, flatten(found)):
        assert list(inspect.signature(model.forward).parameters) == [word, "y"]
        assert torch.equal(model(**{word: x, "y": y}), expected)
    once, step = split(found, [word])
    assert next(iter(inspect.signature(step.forward).parameters)) == word
    torch.testing.assert_close(step(x, *once(y)), expected)


def test_a_block_may_read_a_stream_of_any_name() -> None:
    text = """
archspec: 1
name: reads
interface: {kind: backbone, inputs: {x: {axes: {token: 4}, width: 8}}}
graph:
  - {name: torch, kind: mlp, ratio: 1}
  - {name: slice, kind: mlp, ratio: 1}
  - {kind: repeat, times: 2, body: [first, second]}
blocks:
  first: {kind: attention, heads: 2, memory: torch}
  second: {kind: attention, heads: 2, memory: slice}
"""
    x = torch.randn(2, 4, 8)
    expected = compile(loads(text.replace("torch", "a").replace("slice", "b")), seed=1)
    found = compile(loads(text), seed=1)
    for one, other in zip(found.parameters(), expected.parameters(), strict=True):
        other.data.copy_(one)
    assert torch.equal(found(x), expected(x))
