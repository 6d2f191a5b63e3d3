"""Specs that use each registered kind, and the files of the examples.

A kind that fills a slot is put into a standard place for its role, as far as its types allow; `FIELDS` has what it
cannot do without. Kinds that need a place of their own, and fields that change what is computed, are in ``specs.yaml``.
A kind's own ``example`` comes first, if it is a whole spec.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from archspec.canonical import text
from archspec.errors import SpecError
from archspec.kind import REGISTRY, Kind
from archspec.source import read
from archspec.spec import loads

EXAMPLES = Path(__file__).parents[1] / "examples"
SPECS = read(Path(__file__).with_name("specs.yaml"))

LAYER = {
    "kind": "transformer_layer",
    "mixer": {"kind": "attention", "heads": 2},
    "channel": {"kind": "mlp", "ratio": 2},
}
EXPERT = {"kind": "glu", "hidden": 8}
FIELDS: dict[str, dict[str, Any]] = {
    "attention": {"heads": 4, "kv_heads": 2},
    "blend": {"factor": 0.25, "first": "layer_norm", "second": "rms_norm"},
    "block_diagonal": {"groups": 4},
    "block_sparse_attention": {"heads": 2, "block": 2, "random": 1},
    "by_label": {"label": "speaker", "body": "rms_norm"},
    "categorical_attention": {"heads": 4, "values": 4, "noise": 0.0},
    "categorical_mlp": {"count": 4, "values": 4, "noise": 0.0},
    "chunks": {"size": 4},
    "dense_sparse": {"rank": 6, "nonzeros": 2},
    "cluster_attention": {"heads": 2, "clusters": 3, "window": 4},
    "combiner": {"heads": 2, "segment": 4},
    "diagonal_state_space": {"state": 4},
    "disentangled_attention": {"heads": 2},
    "relative_attention": {"heads": 2},
    "dynamic_convolution": {"heads": 2, "size": 3},
    "gated_delta_rule": {"heads": 4, "key_heads": 2},
    "gaussian_mixture_features": {"count": 8, "components": 2},
    "gated_linear_attention": {"heads": 2},
    "generated_features": {"count": 8, "noise": 4, "generator": {"kind": "mlp", "hidden": 6, "width": 8}},
    "global_local_attention": {"heads": 2, "radius": 3, "reach": 4},
    "glu": {"hidden": 24},
    "hash_memory": {"bits": 4},
    "label_embedding": {"label": "speaker"},
    "label_router": {"label": "speaker"},
    "label_selector": {"label": "speaker", "values": [1]},
    "latent_attention": {
        "heads": 2, "kv_rank": 8, "query_rank": 8, "nope_width": 8, "rope_width": 4, "value_width": 8
    },
    "layer_scale": {"init": 0.5},
    "linear_attention": {"heads": 2},
    "lora": {"rank": 4},
    "low_rank": {"rank": 4},
    "mamba": {"state": 4},
    "mamba2": {"heads": 4, "state": 8},
    "mixture": {"experts": {"count": 4, "body": EXPERT}},
    "mixture_of_attention": {"experts": 4, "heads": 2, "router": {"kind": "top_k", "balance": "none"}},
    "mlp": {"ratio": 2, "bias": True},
    "monarch": {"blocks": 4},
    "neural_memory": {"heads": 2, "hidden": 6, "window": 3, "chunk": 4, "momentum": True},
    "nystrom_attention": {"heads": 2, "landmarks": 4},
    "parallel": {"branches": [{"kind": "mlp", "ratio": 2}, {"kind": "mlp", "ratio": 1}]},
    "project": {"width": 16, "bias": True},
    "shaped_attention": {"heads": 2},
    "residual": {"norm": "layer_norm", "body": {"kind": "mlp", "ratio": 1}},
    "relative_key": {"reach": 4},
    "rename": {"span": "others"},
    "shared_atoms": {"count": 3},
    "sliding_window_attention": {"heads": 2, "window": 3},
    "softmax_free_attention": {"heads": 2},
    "strided": {"size": 2},
    "tensor_attention": {"heads": 2},
    "token_parameters": {"count": 6},
    "transformer_layer": {name: LAYER[name] for name in ("mixer", "channel")},
    "windows": {"size": 2},
}  # fmt: skip

DISTANT = ("disentangled_attention", "relative_attention")  # kinds that read a stream of distances
SPANNED = ("global_local_attention",)  # kinds that read two spans


def placed(role: str, node: Any) -> Any:
    """The node that uses another one in a role; None for a role without a standard place."""
    mlp = {"kind": "mlp", "ratio": 2}
    attention = {"kind": "attention", "heads": 2}
    layer = {"kind": "transformer_layer"}
    return {
        "body": {"kind": "residual", "body": node} if node["kind"] == "delay" else node,
        "channel": {**layer, "channel": node},
        "feature_map": {**layer, "mixer": {"kind": "linear_attention", "heads": 2, "features": node}},
        "condition": {**layer, "mixer": {"kind": "circular_convolution", "filter": "lag_table", "condition": node}},
        "filter": {**layer, "mixer": {"kind": "long_convolution", "filter": node}},
        "history": {"kind": "repeat", "times": 3, "body": "layer", "history": node},
        "linear": {**layer, "channel": {"kind": "mlp", "hidden": 16, "linear": node}},
        "mixer": {**layer, "mixer": node},
        "norm": {**layer, "norm": node, "channel": mlp},
        "position": {**layer, "mixer": {**attention, "position": node}},
        "router": {"kind": "mixture", "experts": {"count": 4, "body": EXPERT}, "router": node},
        "scale": {**layer, "channel": mlp, "scale": node},
        "scheme": {"kind": "partition", "scheme": node, "body": "layer"},
        "score": {**layer, "mixer": {**attention, "position": "rope", "score": node}},
        "sharing": {**layer, "mixer": {"kind": "attention", "heads": 4, "kv_heads": 2, "sharing": node}},
        "selector": {"kind": "route", "take": node, "body": "layer"},
    }.get(role)


EMBED = [{"kind": "token_embedding", "width": 16}]
PATCHES = [{"kind": "patch_embedding", "size": 2, "width": 16}, "learned_position"]
# Where a part of a graph may stand: the interface, what comes before and what comes after.
CONTEXTS: dict[str, tuple[dict[str, Any], list[Any], list[Any]]] = {
    "causal": ({"kind": "causal_lm", "vocab": 32, "length": 64}, EMBED, ["lm_head"]),
    "masked": ({"kind": "masked_lm", "vocab": 32, "length": 64}, EMBED, ["lm_head"]),
    "classify": (
        {"kind": "sequence_classification", "vocab": 32, "length": 64, "classes": 5}, EMBED, ["pool", "classifier"]
    ),
    "image": ({"kind": "image_classification", "image": [8, 8, 3], "classes": 5}, PATCHES, ["pool", "classifier"]),
}  # fmt: skip


def whole(entry: Mapping[str, Any]) -> str:
    """The text of a spec from an entry of ``specs.yaml``."""
    place = next(iter(entry))
    interface, before, after = CONTEXTS.get(place, ({"kind": place}, [], []))
    spec = {
        "archspec": 1,
        "name": "small",
        "interface": {**interface, **entry.get("interface", {})},
        "blocks": {"layer": LAYER, **entry.get("blocks", {})},
        "graph": [*before, *entry[place], *entry.get("tail", after)],
    }
    return text(spec | {key: entry[key] for key in ("outputs", "defaults") if key in entry})


def specs_of(kind: type[Kind]) -> Iterator[str]:
    """Texts of small complete specs that use a kind; none if nobody knows how."""
    if kind.example.startswith("archspec:"):
        yield kind.example
    yield from (whole(entry) for entry in SPECS.get(kind.name_, ()))
    yield from in_its_places(kind)


def in_its_places(kind: type[Kind], **values: Any) -> Iterator[str]:
    """Texts with a kind in the standard places of its roles, where its types allow."""
    name, fields = kind.name_, FIELDS.get(kind.name_, {}) | values
    interface = {"labels": {"speaker": 2}} if "label" in fields else {}
    if name in DISTANT:
        fields = {"positions": "far", **fields}
        far = {"name": "far", "kind": "learned_distances", "reach": 4, "width": 8}
        yield whole({"masked": [far, {"from": "token_embedding", "kind": name, **fields}]})
        return
    if name in SPANNED:
        yield whole({"classify": [{"kind": "class_token", "count": 2}, {"kind": name, **fields}]})
        return
    for node in (placed(role, {"kind": name, **fields}) for role in kind.roles):
        if node is not None:
            found = [whole({place: [node], "interface": interface}) for place in ("causal", "image", "masked")]
            accepted = [_accepted(text) for text in found]
            yield from (text for text, fits in zip(found[:2], accepted, strict=False) if fits)
            if accepted == [False, False, True]:
                yield found[2]


def _accepted(found: str) -> bool:
    try:
        loads(found)
    except SpecError:
        return False
    return True


@cache
def kind_specs() -> dict[str, str]:
    """All texts by the kind's name and a number."""
    return {
        f"{name}-{number}": found
        for name, kind in REGISTRY.items()
        for number, found in enumerate(dict.fromkeys(specs_of(kind)))
    }


def example_files() -> dict[str, Path]:
    """Files of specs under examples, by their names."""
    return {
        path.stem: path for path in sorted(EXAMPLES.rglob("*.yaml")) if "\narchspec:" in "\n" + path.read_text("utf-8")
    }
