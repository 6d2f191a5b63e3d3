"""Small specs that take every way through the pricing of a graph."""

from __future__ import annotations

from archspec.spec import Spec, loads

LM = "{kind: causal_lm, vocab: 48, length: 24}"
IMAGE = "{kind: image_classification, image: [8, 8, 3], classes: 5}"
EMBED = "{kind: token_embedding, width: 32}"
GLU = "{kind: glu, hidden: 48}"


def spec(interface: str, *graph: str, blocks: str = "{}", outputs: str = "") -> Spec:
    nodes = "\n".join(f"  - {node}" for node in graph)
    return loads(f"archspec: 1\ninterface: {interface}\nblocks: {blocks}\ngraph:\n{nodes}\n{outputs}")


def layer(mixer: str, channel: str = GLU, **fields: str) -> str:
    rest = "".join(f", {key}: {value}" for key, value in fields.items())
    return f"{{kind: transformer_layer, norm: rms_norm, mixer: {mixer}, channel: {channel}{rest}}}"


def decoder(mixer: str, **fields: str) -> Spec:
    return spec(LM, EMBED, f"{{kind: repeat, times: 3, body: {layer(mixer, **fields)}}}", "rms_norm", "lm_head")


SMALL = "{kind: glu, hidden: 16}"
PLAIN = "{kind: attention, heads: 4}"
SPECS = {
    "grouped queries": lambda: decoder("{kind: attention, heads: 4, kv_heads: 2, position: rope, qk_norm: rms_norm}"),
    "window": lambda: decoder("{kind: attention, heads: 4, window: 5}"),
    "alibi": lambda: decoder("{kind: attention, heads: 4, position: alibi}"),
    "soft cap": lambda: decoder("{kind: attention, heads: 4, softcap: 20}"),
    "dropout": lambda: decoder("{kind: attention, heads: 4, dropout: 0.1}", dropout="0.1", drop_path="0.2 * depth"),
    "convolution": lambda: decoder("{kind: depthwise_convolution, size: 3}"),
    "mixture": lambda: decoder(
        PLAIN, channel=f"{{kind: mixture, experts: {{count: 4, body: {SMALL}}}, shared: {SMALL}}}"
    ),
    "learned positions, tied": lambda: spec(
        LM, EMBED, "learned_position", f"{{kind: repeat, times: 2, body: {layer(PLAIN)}}}",
        "{kind: lm_head, tied: true}",
    ),
    "widths that vary": lambda: spec(
        LM, EMBED, f"{{kind: repeat, times: 3, body: {layer(PLAIN, '{kind: glu, hidden: 16 * (index + 1)}')}}}",
        "lm_head",
    ),
    "loop": lambda: spec(LM, EMBED, f"{{kind: loop, times: 3, body: {layer(PLAIN)}}}", "lm_head"),
    "partly shared": lambda: spec(
        LM, EMBED, f"{{kind: repeat, times: 3, share: [mixer], body: {layer(PLAIN)}}}", "lm_head"
    ),
    "parallel": lambda: spec(
        LM, EMBED, f"{{kind: parallel, merge: gate, branches: [{PLAIN}, {GLU}]}}", layer(PLAIN, place="parallel"),
        "lm_head",
    ),
    "skips between far nodes": lambda: spec(
        LM, EMBED, f"{{name: down, kind: repeat, times: 2, body: {layer(PLAIN)}}}", layer(PLAIN),
        "{kind: combine, how: concat, from: [transformer_layer, down.0, token_embedding]}",
        "{kind: project, width: 32}", "lm_head",
    ),
    "learned mix of rounds": lambda: spec(
        LM, EMBED, f"{{kind: repeat, times: 3, history: learned_mix, body: {layer(PLAIN)}}}", "lm_head"
    ),
    "shared node": lambda: spec(
        LM, EMBED, f"{{name: a, kind: sequence, body: {layer(PLAIN)}}}", "{weights: a}", "rms_norm", "lm_head"
    ),
    "nested rounds": lambda: spec(
        LM, EMBED, f"{{kind: repeat, times: 2, body: [{{kind: loop, times: 2, body: {layer(PLAIN)}}}, rms_norm]}}",
        "lm_head",
    ),
    "image": lambda: spec(
        IMAGE, "{kind: patch_embedding, size: 2, width: 32}", "class_token", "learned_position",
        f"{{kind: repeat, times: 2, body: {layer(PLAIN, scale='layer_scale')}}}", "{kind: pool, take: class}",
        "classifier",
    ),
    "pyramid": lambda: spec(
        IMAGE, "{kind: patch_embedding, size: 2, kernel: 3, padding: 1, width: 16}", layer(PLAIN),
        "{kind: patch_merging, factor: 2, width: 2 * width_in}", layer(PLAIN), "pool", "classifier",
    ),
    "encoder and decoder": lambda: spec(
        "{kind: seq2seq_lm, vocab: 48, length: 12, source_length: 20}",
        "{name: read, from: source, kind: token_embedding, width: 32}",
        f"{{name: memory, kind: repeat, times: 2, body: {layer(PLAIN)}}}",
        "{name: wrote, from: target, kind: token_embedding, width: 32}",
        f"{{kind: repeat, times: 2, body: [{{kind: residual, body: {PLAIN}}}, "
        "{kind: residual, body: {kind: attention, heads: 4, memory: memory}}]}",
        "lm_head",
    ),
    "streams that exchange, one unread at the end": lambda: spec(
        LM, "{name: a, from: tokens, kind: token_embedding, width: 32}",
        "{name: b, from: tokens, kind: token_embedding, width: 32}",
        "{name: pair, from: [a, b], kind: repeat, times: 3, body: exchange}",
        "{from: pair.left, kind: lm_head}",
        blocks="{exchange: {inputs: [left, right], graph: ["
        "{name: x, from: [left, right], kind: combine}, {name: y, from: right, kind: mlp, hidden: 64}], "
        "outputs: {left: x, right: y}}}",
    ),
    "a branch of training": lambda: spec(
        LM, EMBED, layer(PLAIN), "{name: more, kind: project, width: 7, when: training}",
        "{name: logits, from: transformer_layer, kind: lm_head}", outputs="outputs: [logits, more]",
    ),
    "padding and labels": lambda: spec(
        "{kind: masked_lm, vocab: 48, length: 24, padding: true, labels: {speaker: 3}}",
        EMBED, "{kind: label_embedding, label: speaker}", layer(PLAIN), "lm_head",
    ),
}  # fmt: skip
