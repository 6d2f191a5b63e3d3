"""Specs that use each registered kind, and the files of the examples.

A kind that fills a slot is put into a standard place for its role. A kind whose fields cannot be guessed has them under
`FIELDS`; one that needs a place of its own has whole specs under `SPECS`. A kind's own ``example``, if it is a whole
spec, comes before all of these.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import archspec.kinds  # noqa: F401  registers the built-in kinds
from archspec.errors import SpecError
from archspec.kind import REGISTRY, Kind
from archspec.spec import loads

EXAMPLES = Path(__file__).parents[1] / "examples"

# What a kind cannot do without, or what makes more of it run.
FIELDS = {
    "attention": "heads: 4, kv_heads: 2",
    "latent_attention": "heads: 2, kv_rank: 8, query_rank: 8, nope_width: 8, rope_width: 4, value_width: 8",
    "mlp": "ratio: 2, bias: true",
    "glu": "hidden: 24",
    "project": "width: 16, bias: true",
    "mixture": "experts: {count: 4, body: {kind: glu, hidden: 8}}",
    "low_rank": "rank: 4",
    "windows": "size: 2",
    "strided": "size: 2",
    "chunks": "size: 4",
    "by_label": "label: speaker, body: rms_norm",
    "label_embedding": "label: speaker",
    "label_selector": "label: speaker, values: [1]",
    "label_router": "label: speaker",
    "layer_scale": "init: 0.5",
    "rename": "span: others",
}
LAYER = "{kind: transformer_layer, mixer: {kind: attention, heads: 2}, channel: {kind: mlp, ratio: 2}}"
# The node that uses a kind in a role.
PLACES = {
    "norm": "{kind: transformer_layer, norm: @, channel: {kind: mlp, ratio: 2}}",
    "mixer": "{kind: transformer_layer, mixer: @}",
    "channel": "{kind: transformer_layer, channel: @}",
    "position": "{kind: transformer_layer, mixer: {kind: attention, heads: 2, position: @}}",
    "linear": "{kind: transformer_layer, channel: {kind: mlp, hidden: 16, linear: @}}",
    "scale": "{kind: transformer_layer, channel: {kind: mlp, ratio: 2}, scale: @}",
    "history": f"{{kind: repeat, times: 3, body: {LAYER}, history: @}}",
    "router": "{kind: mixture, experts: {count: 4, body: {kind: mlp, ratio: 1}}, router: @}",
    "selector": f"{{kind: route, take: @, body: {LAYER}}}",
    "scheme": f"{{kind: partition, scheme: @, body: {LAYER}}}",
    "body": "@",
}


def causal(*nodes: str, head: str = "lm_head", **interface: str) -> str:
    return _spec("causal_lm", ["{kind: token_embedding, width: 16}", *nodes, head], vocab="32", length="64", **interface)


def masked(*nodes: str, **interface: str) -> str:
    return _spec("masked_lm", ["{kind: token_embedding, width: 16}", *nodes, "lm_head"], vocab="32", length="64", **interface)


def image(*nodes: str, tail: tuple[str, ...] = ("pool", "classifier")) -> str:
    stem = ["{kind: patch_embedding, size: 2, width: 16}", "learned_position"]
    return _spec("image_classification", [*stem, *nodes, *tail], image="[8, 8, 3]", classes="5")


def backbone(inputs: str, *nodes: str, outputs: str) -> str:
    return _spec("backbone", list(nodes), inputs=inputs) + f"outputs: {outputs}\n"


def _spec(kind: str, nodes: list[str], **interface: str) -> str:
    fields = "".join(f", {key}: {value}" for key, value in interface.items())
    graph = "".join(f"  - {node}\n" for node in nodes)
    return f"archspec: 1\nname: small\ninterface: {{kind: {kind}{fields}}}\ngraph:\n{graph}"


SPEAKER = {"labels": "{speaker: 2}"}
RAGGED = {"padding": "true"}
ATTEND = "{kind: residual, body: {kind: attention, heads: 2, bias: true%s}}"

# Whole specs for kinds that need a place of their own, and for fields that change what is computed.
SPECS: dict[str, list[str]] = {
    "activation": [causal(f"{{kind: activation, function: {name}}}") for name in ("relu_squared", "softplus", "tanh", "sigmoid")],
    "add_input": [causal(f"{{kind: loop, times: 3, body: {LAYER}, history: {{kind: add_input, factor: 0.5}}}}")],
    "alibi": [masked(ATTEND % ", position: alibi"), causal("{kind: residual, body: {kind: attention, heads: 3, head_width: 4, position: alibi}}")],
    "attention": [
        causal(ATTEND % ", window: 3"),
        masked(ATTEND % ", window: 3", **RAGGED),
        causal(ATTEND % ", softcap: 5.0, window: 3"),
        masked(ATTEND % ", talking_heads: true", **RAGGED),
        causal(ATTEND % ", qk_norm: rms_norm, position: {kind: rope, share: 0.5, layout: pairs}"),
        causal(ATTEND % ", head_width: 4, value_width: 6, scale: 0.3, qkv_bias: false"),
        causal(ATTEND % ", linears: {value: no_matrix}"),
        image("class_token", "{kind: residual, on: class, body: {kind: attention, heads: 2, query: class}}",
              tail=("{kind: pool, take: class}", "classifier")),
        image("{kind: residual, body: {kind: attention, heads: 2, memory: {kind: pool, window: 2}}}"),
        backbone("{x: {axes: {token: n}, width: 16, causal: token}, y: {axes: {token: n}, width: 8, causal: token}}",
                 "{name: a, from: x, kind: attention, heads: 2, memory: y}", outputs="a"),
        backbone("{x: {axes: {token: n}, width: 16}, y: {axes: {other: m}, width: 8}}",
                 "{name: a, from: x, kind: attention, heads: 2, memory: y}", outputs="a"),
    ],
    "backbone": [
        backbone("{x: {axes: {token: n}, width: 8}, y: {width: 8}}", "{name: a, from: x, kind: mlp, ratio: 2}",
                 "{name: b, from: y, kind: mlp, ratio: 2}", "{name: c, from: [a, b], kind: combine}",
                 "{name: d, from: x, kind: project, width: 3, when: training}", outputs="{main: c, side: b, extra: d}"),
        backbone("{x: {axes: {row: 4, column: 4, slice: 2}, width: 8}}", "{name: a, kind: mlp, ratio: 2}", outputs="[a]"),
    ],
    "by_label": [
        causal("{kind: mlp, ratio: 2, linear: {kind: by_label, label: speaker}}", **SPEAKER),
        causal(LAYER, **SPEAKER) + "defaults: {linear: {kind: by_label, label: speaker}, norm: {kind: by_label, label: speaker}}\n",
    ],
    "causal_lm": [causal(LAYER), causal(LAYER, **SPEAKER), causal(LAYER, **RAGGED)],
    "chunks": [causal(PLACES["scheme"].replace("@", "{kind: chunks, count: 4}"))],
    "class_token": [
        image(f"{{kind: class_token, last: {last}, count: {count}, span: c}}", LAYER)
        for last, count in (("true", 1), ("false", 2))
    ] + [masked("class_token", LAYER, "{kind: pool, take: class}", "{kind: project, width: 5}").replace(
        "masked_lm", "sequence_classification, classes: 5").replace("  - lm_head\n", "")],
    "classifier": [image(tail=("pool", "{kind: classifier, bias: false}"))],
    "combine": [
        causal("{name: a, kind: mlp, ratio: 2}", "{name: b, from: token_embedding, kind: mlp, ratio: 1}",
               f"{{from: [a, b, token_embedding], kind: combine, how: {how}}}")
        for how in ("add", "multiply", "concat", "mean")
    ],
    "concat_history": [image(f"{{kind: repeat, times: 3, body: {LAYER}, history: concat_history}}")],
    "depthwise_convolution": [
        causal("{kind: depthwise_convolution, size: 4, dilation: 2}"), masked("depthwise_convolution", **RAGGED),
        image("{kind: depthwise_convolution, bias: false}"),
    ],
    "flatten": [image("{kind: flatten, axis: place}", LAYER)],
    "gather": [image("{kind: regroup, size: 2}", "{kind: gather, over: [pixel], width: 12, norm: layer_norm, norm_after: rms_norm}")],
    "glu": [causal("{kind: glu, ratio: 8 / 3, multiple_of: 8, width: 12, linears: {gate: {kind: low_rank, rank: 2}}}")],
    "image_classification": [image(LAYER)],
    "input_stream": [backbone("{x: {axes: {token: n}, vocab: 9, causal: token, limit: 64}}",
                              "{kind: token_embedding, width: 8}", "learned_position", "{name: o, kind: mlp, ratio: 1}", outputs="o")],
    "join": [
        image("{name: q, kind: learned_queries, count: 3, width: 16}", "{name: j, from: [q, learned_position], kind: join}",
              f"{{name: k, kind: repeat, times: 1, body: {LAYER}}}", tail=("{from: k.queries, kind: pool}", "classifier")),
    ],
    "label_router": [causal("{kind: mixture, experts: [{kind: mlp, ratio: 1}, {kind: glu, ratio: 1}], router: {kind: label_router, label: speaker}}", **SPEAKER)],
    "learned_mix": [causal(f"{{kind: repeat, times: 3, body: {LAYER}, history: {{kind: learned_mix, init: even, normalize: none}}}}")],
    "learned_position": [
        image("{kind: learned_position, over: [column]}"), masked("{kind: learned_position, offset: 2}", **RAGGED),
    ],
    "learned_queries": [
        image("{name: x, kind: mlp, ratio: 1}", "{name: q, kind: learned_queries, count: 3, width: 16}",
              "{name: a, kind: attention, heads: 2, memory: x}"),
    ],
    "lm_head": [causal(head="{kind: lm_head, tied: true, bias: true, softcap: 30.0, scale: 0.5}")],
    "loop": [
        causal(f"{{kind: loop, times: 3, body: {LAYER}}}"),
        causal(f"{{kind: loop, times: 3, body: {LAYER}, share: [mixer]}}"),
        causal(f"{{kind: loop, times: 3, body: {LAYER}, overrides: {{1: {{kind: mlp, ratio: 1}}}}}}"),
        causal(f"{{kind: loop, times: 2, body: {LAYER}, router: {{kind: expert_choice, capacity: {{each: [1, 0.5]}}}}}}"),
    ],
    "masked_lm": [masked(LAYER), masked(LAYER, **RAGGED)],
    "mixture": [
        causal("{kind: mixture, experts: [{kind: mlp, ratio: 1}, {kind: glu, ratio: 2}, identity], shared: {kind: mlp, ratio: 1}}"),
        causal("{kind: mixture, experts: {count: 3, body: {kind: mlp, ratio: 1, bias: true}}, shared: {kind: glu, ratio: 1}}"),
        causal("{kind: mixture, experts: {count: 2, body: [{kind: mlp, ratio: 1}, rms_norm]}, router: {kind: top_k, k: 1, normalize: false}}"),
        image("{kind: mixture, experts: {count: 2, body: {kind: glu, ratio: 1}}}"),
    ],
    "mlp": [image("{kind: mlp, hidden: 24, depthwise: 3, bias: true}"), causal("{kind: mlp, hidden: 24, width: 8, linear: {kind: low_rank, rank: 2}}")],
    "none": [causal(ATTEND % ", position: none")],
    "parallel": [
        image(f"{{kind: parallel, merge: {merge}, branches: [{{kind: mlp, ratio: 1}}, {LAYER}, absent, identity]}}")
        for merge in ("sum", "concat", "gate", "mean")
    ] + [causal("{kind: transformer_layer, place: parallel, mixer: {kind: attention, heads: 2}, channel: {kind: mlp, ratio: 2}}")],
    "partition": [
        image(f"{{kind: partition, scheme: {{kind: {scheme}}}, body: {LAYER}}}")
        for scheme in ("windows, size: 2, shift: 1", "windows, size: 3, pad: true", "windows, size: 3, pad: true, shift: 1",
                       "strided, size: [2, 4]", "strided, size: 3, pad: true")
    ] + [
        image(f"{{kind: partition, within: [{axis}], body: {LAYER}}}") for axis in ("row", "column", "row, column")
    ] + [
        image("{kind: partition, scheme: {kind: windows, size: 2}, body: pool}", LAYER),
        causal(f"{{kind: partition, scheme: {{kind: chunks, size: 4}}, body: {LAYER}}}", **SPEAKER, **RAGGED),
        masked("{name: far, kind: mlp, ratio: 1}", "{from: token_embedding, kind: partition, scheme: {kind: chunks, size: 4}, "
               "body: {kind: attention, heads: 2, memory: far}}", **RAGGED),
        backbone("{x: {axes: {token: 8}, width: 8}, y: {axes: {latent: 4}, width: 8}, z: {axes: {place: m}, width: 8}}",
                 "{name: p, from: [x, y], kind: partition, scheme: {x: {kind: chunks, size: 4}, y: {kind: chunks, count: 2}}, body: "
                 "{inputs: [x, y], graph: [{name: a, from: x, kind: attention, heads: 2, memory: y}, {name: b, from: y, kind: attention, heads: 2, memory: z}], "
                 "outputs: {x: a, y: b}}}", outputs="{x: p.x, y: p.y}"),
    ],
    "patch_embedding": [
        _spec("image_classification", ["{kind: patch_embedding, size: 2, kernel: 3, padding: 1, width: 16, norm: layer_norm, bias: false}", "pool", "classifier"],
              image="[8, 8, 3]", classes="5"),
        backbone("{x: {axes: {slice: 4, row: 4, column: 8}, width: 2}}", "{name: p, kind: patch_embedding, size: 2, width: 6}", outputs="p"),
    ],
    "patch_expanding": [image("{kind: patch_expanding, factor: 2, width: 6, bias: true}")],
    "patch_merging": [
        image("{kind: patch_merging, width: 12}"),
        image("{kind: patch_merging, width: 12, place: after, bias: true, norm: rms_norm}"),
    ],
    "pool": [
        image(tail=(f"{{kind: pool, over: [row, column], how: {how}}}", "classifier")) for how in ("mean", "max", "sum")
    ] + [
        image("{kind: pool, window: 2, how: max}", "{kind: pool, over: [row]}"),
        *(
            masked(LAYER, "{kind: pool%s}" % field, "{kind: project, width: 5}", **RAGGED).replace(
                "masked_lm", "sequence_classification, classes: 5").replace("  - lm_head\n", "")
            for field in (", take: last", ", take: first", ", how: max", "")
        ),
    ],
    "project": [causal("{kind: project, width: 12, activation: silu}")],
    "regroup": [image("{kind: regroup, size: 2}", f"{{kind: partition, within: [pixel], body: {LAYER}}}")],
    "relative_bias_table": [image("{kind: transformer_layer, mixer: {kind: attention, heads: 2, position: relative_bias_table}}")],
    "repeat": [
        causal(f"{{name: r, kind: repeat, times: 3, body: {LAYER}, share: [mixer]}}", "{from: [r.0, r.2], kind: combine}"),
        causal(f"{{kind: repeat, rounds: [{LAYER}, {{kind: mlp, ratio: 1}}, absent]}}"),
        causal(f"{{kind: repeat, times: 2, body: {LAYER}, overrides: {{0: identity}}}}"),
        causal("{kind: repeat, times: 2, body: {kind: mlp, hidden: 8 * (index + 1), activation: relu}}"),
        causal("{name: r, kind: repeat, times: 0, body: identity}"),
        image(f"{{name: r, kind: repeat, times: 2, body: {LAYER}}}", tail=("{from: r.each, kind: pool}", "classifier")),
    ],
    "residual": [
        causal(f"{{kind: residual, place: {place}, norm: layer_norm, scale: {{kind: layer_scale, init: 0.1}}, factor: 0.5, skip: 2.0, body: {{kind: mlp, ratio: 1}}}}")
        for place in ("pre", "post", "sandwich", "after")
    ] + [
        image("class_token", "{kind: residual, on: patches, skip: 0.5, body: [{from: class_token.patches, kind: mlp, ratio: 1}]}", LAYER, tail=("{kind: pool, take: class}", "classifier")),
    ],
    "resize": [image(f"{{kind: resize, size: [6, 3], how: {how}}}") for how in ("bicubic", "bilinear", "nearest")],
    "rope": [image("{kind: transformer_layer, mixer: {kind: attention, heads: 2, position: rope}}")],
    "rope_scaling": [
        causal(ATTEND % f", position: {{kind: rope, scaling: {{kind: {kind}, factor: 4, length: 4}}}}") for kind in ("llama3", "linear")
    ],
    "route": [
        causal(f"{{kind: route, take: {{kind: expert_choice, capacity: 0.5}}, weigh: {weigh}, body: {LAYER}}}") for weigh in ("output", "delta")
    ] + [masked(f"{{kind: route, take: expert_choice, body: {LAYER}, rest: {{kind: mlp, ratio: 1}}}}", **RAGGED)],
    "seq2seq_lm": [
        _spec("seq2seq_lm", [
            "{name: read, from: source, kind: token_embedding, width: 16}", f"{{name: told, kind: repeat, times: 2, body: {LAYER}}}",
            "{name: write, from: target, kind: token_embedding, width: 16}", LAYER,
            "{kind: residual, norm: layer_norm, body: {kind: attention, heads: 2, memory: told}}", "lm_head"],
            vocab="32", length="64", **fields)
        for fields in ({}, RAGGED)
    ],
    "sequence": [causal("{kind: sequence, body: [{kind: mlp, ratio: 1}, rms_norm]}")],
    "sequence_classification": [masked(LAYER, "pool", "classifier").replace(
        "masked_lm", "sequence_classification, classes: 5").replace("  - lm_head\n", "")],
    "token_embedding": [causal().replace("width: 16", "width: 16, scale: 4.0, std: 0.1")],
    "top_k": [
        causal(PLACES["router"].replace("@", f"{{kind: top_k, {fields}}}"))
        for fields in ("score: sigmoid, groups: 2, top_groups: 1, balance: bias, scale: 2.5", "k: 1, normalize: false, z_loss: 0.1",
                       "k: 3, balance: none", "capacity: 1.0")
    ],
    "transformer_layer": [
        causal(LAYER.replace("}}", f"}}, place: {place}}}")) for place in ("post", "sandwich", "after", "parallel")
    ],
    "windows": [image(PLACES["scheme"].replace("@", "{kind: windows, size: [2, 4]}"))],
}  # fmt: skip


def specs_of(kind: type[Kind]) -> Iterator[str]:
    """Texts of small complete specs that use a kind; none if nobody knows how."""
    name = kind.name_
    if kind.example.startswith("archspec:"):
        yield kind.example
    yield from SPECS.get(name, ())
    word = f"{{kind: {name}, {FIELDS[name]}}}" if name in FIELDS else name
    labels = SPEAKER if "speaker" in word else {}
    for role in kind.roles:
        if role in PLACES and "kind: " + name not in PLACES[role]:
            node = PLACES[role].replace("@", word)
            yield from (text for text in (causal(node, **labels), image(node)) if _accepted(text))


def _accepted(text: str) -> bool:
    try:
        loads(text)
    except SpecError:
        return False
    return True


def kind_specs() -> dict[str, str]:
    """All texts by the kind's name and a number."""
    found: dict[str, str] = {}
    for name, kind in REGISTRY.items():
        found |= {f"{name}-{number}": text for number, text in enumerate(dict.fromkeys(specs_of(kind)))}
    return found


def example_files() -> dict[str, Path]:
    """Files of specs under examples, by their names."""
    return {path.stem: path for path in sorted(EXAMPLES.rglob("*.yaml")) if "\narchspec:" in "\n" + path.read_text("utf-8")}
