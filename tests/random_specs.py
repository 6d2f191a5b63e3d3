"""Random specs for hypothesis: valid ones by construction, and ways to break one."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

Draw = Any
Tree = dict[str, Any]


@dataclass(frozen=True)
class At:
    """Where a node is drawn: the width and the axes of its input, and how much may still be nested in it."""

    width: int
    axes: str  # causal, line or grid
    deep: int


def choice(draw: Draw, *options: Any) -> Any:
    return draw(st.sampled_from(options))


@st.composite
def specs(draw: Draw) -> Tree:
    """A whole spec of some nodes that nest, differ in width and read each other."""
    axes = choice(draw, "causal", "line", "grid")
    width = choice(draw, 8, 16, 24)
    interface, first, last = {
        "causal": (
            {"kind": "causal_lm", "vocab": 11, "length": 32},
            {"kind": "token_embedding", "width": width},
            ["lm_head"],
        ),
        "line": (
            {
                "kind": "sequence_classification",
                "vocab": 11,
                "length": 32,
                "classes": 3,
                "padding": draw(st.booleans()),
            },
            {"kind": "token_embedding", "width": width},
            ["pool", "classifier"],
        ),
        "grid": (
            {"kind": "image_classification", "image": [8, 16, 3], "classes": 3},
            {"kind": "patch_embedding", "size": 2, "width": width},
            ["pool", "classifier"],
        ),
    }[axes]
    nodes, _ = body(draw, At(width, axes, 3))
    graph = [{"name": "first", **first}, *position(draw), *named(draw, nodes, width), *last]
    return {"archspec": 1, "name": "random", "interface": interface, "graph": graph}


def position(draw: Draw) -> list[Tree]:
    return [{"kind": choice(draw, "learned_position", "sinusoidal_position")}] if draw(st.booleans()) else []


def named(draw: Draw, nodes: list[Any], width: int) -> list[Any]:
    """The nodes, of which the last may come together with the first stream of the graph."""
    if not draw(st.booleans()):
        return nodes
    how = choice(draw, "add", "concat", "multiply", "mean")
    last: Tree = {"name": "far", "kind": "project", "width": width}
    return [*nodes, last, {"from": ["far", "first"], "kind": "combine", "how": how}]


def body(draw: Draw, at: At) -> tuple[list[Any], int]:
    """Some nodes one after another, and the width that comes out."""
    nodes = []
    for _ in range(draw(st.integers(1, 3 if at.deep == 3 else 2))):
        node, width = any_node(draw, at)
        nodes.append(node)
        at = replace(at, width=width)
    return nodes, at.width


def any_node(draw: Draw, at: At) -> tuple[Any, int]:
    if draw(st.integers(0, 5)) == 0:
        width = choice(draw, 8, 16, 24)
        return {"kind": "project", "width": width, "bias": draw(st.booleans())}, width
    makers = [layer, layer, residual, leaf]
    if at.deep:
        makers += [repeat, loop, parallel, mixture, partition, route]
    return choice(draw, *makers)(draw, replace(at, deep=at.deep - 1)), at.width


def same_width(draw: Draw, at: At) -> Any:
    """A body that gives tokens as wide as those that it reads."""
    if not at.deep:
        return leaf(draw, at)
    nodes, width = body(draw, at)
    if width != at.width:
        nodes.append({"kind": "project", "width": at.width})
    return nodes[0] if len(nodes) == 1 and draw(st.booleans()) else nodes


def norm(draw: Draw) -> Any:
    return choice(
        draw, "layer_norm", "rms_norm", {"kind": "rms_norm", "offset": 1.0}, {"kind": "layer_norm", "bias": False}
    )


def attention(draw: Draw, at: At) -> Tree:
    heads = choice(draw, *(n for n in (1, 2, 4) if at.width // n % 4 == 0))
    node: Tree = {"kind": "attention", "heads": heads, "bias": draw(st.booleans())}
    options: dict[str, Any] = {
        "kv_heads": st.sampled_from([n for n in (1, 2, 4) if heads % n == 0]),
        "head_width": st.sampled_from([4, 8]),
        "value_width": st.sampled_from([3, 8]),
        "position": st.sampled_from(
            ["rope", "none", {"kind": "rope", "layout": "pairs"}, *([] if at.axes == "grid" else ["alibi"])]
        ),
        "softcap": st.just(20.0),
        "qk_norm": st.just("rms_norm"),
        "dropout": st.just(0.1),
        "talking_heads": st.just(True),
    }
    if at.axes != "grid":
        options |= {"window": st.integers(1, 5), "position": st.sampled_from(["rope", "alibi"])}
    chosen = draw(st.lists(st.sampled_from(sorted(options)), max_size=3, unique=True))
    return node | {name: draw(options[name]) for name in chosen}


def channel(draw: Draw, at: At) -> Tree:
    node: Tree = {
        "kind": choice(draw, "mlp", "glu"),
        **choice(draw, {"ratio": 2}, {"hidden": "width_in * 3 / 2"}, {"hidden": 20}),
    }
    if draw(st.booleans()):
        node["activation"] = choice(draw, "relu", "silu", "relu_squared")
    if draw(st.integers(0, 3)) == 0:
        node["linear"] = {"kind": "low_rank", "rank": 3}
    return node


RECURRENT: list[Tree] = [
    {"kind": "gated_delta_rule", "heads": 2, "key_width": 4},
    {"kind": "gated_linear_attention", "heads": 2, "key_width": 4},
    {"kind": "neural_memory", "heads": 2, "window": 2, "chunk": 4},
    {"kind": "linear_attention", "heads": 2},
    {"kind": "mamba", "state": 4},
    {"kind": "mamba2", "heads": 2, "state": 4},
    {"kind": "rg_lru", "heads": 2},
    {"kind": "rwkv_time_mixing"},
]


def mixer(draw: Draw, at: At) -> Tree:
    if draw(st.integers(0, 3)) == 0:
        convolutions = [{"kind": kind, "size": 3} for kind in ("depthwise_convolution", "short_convolution")]
        return choice(draw, *convolutions, *(RECURRENT if at.axes != "grid" else []))
    return attention(draw, at)


PLAIN = [
    {"kind": "activation", "function": "silu"},
    {"kind": "dropout", "rate": 0.1},
    {"kind": "layer_scale", "init": 0.5},
]


def leaf(draw: Draw, at: At) -> Any:
    if draw(st.booleans()):
        return choice(draw, mixer, channel)(draw, at)
    return choice(draw, norm(draw), *PLAIN)


def layer(draw: Draw, at: At) -> Tree:
    node = {
        "kind": "transformer_layer",
        "norm": norm(draw),
        "place": choice(draw, "pre", "post", "sandwich", "after", "parallel"),
    }
    if draw(st.booleans()):
        node["drop_path"] = choice(draw, 0.1, "0.2 * depth")
    parts = {"mixer": mixer, "channel": channel}
    for name in choice(draw, ("mixer", "channel"), ("mixer",), ("channel",)):
        node[name] = same_width(draw, at) if at.deep and draw(st.integers(0, 4)) == 0 else parts[name](draw, at)
    return node


def residual(draw: Draw, at: At) -> Tree:
    node = {"kind": "residual", "place": choice(draw, "pre", "post", "sandwich", "after"), "body": same_width(draw, at)}
    if draw(st.booleans()):
        node["norm"] = norm(draw)
    return node | choice(draw, {}, {"factor": 0.5}, {"skip": 2.0, "scale": "layer_scale"}, {"drop_path": 0.1})


def repeat(draw: Draw, at: At) -> Tree:
    if draw(st.integers(0, 2)) == 0:
        return {"kind": "repeat", "rounds": [same_width(draw, at) for _ in range(draw(st.integers(1, 3)))]}
    node: Tree = {"kind": "repeat", "times": draw(st.integers(1, 3)), "body": same_width(draw, at)}
    if draw(st.integers(0, 2)) == 0:
        node["history"] = choice(draw, "learned_mix", "add_input", "concat_history")
    if draw(st.integers(0, 3)) == 0:
        node["body"] = {"kind": "mlp", "hidden": "4 * (index + 1)"}
    return node


def loop(draw: Draw, at: At) -> Tree:
    return {"kind": "loop", "times": draw(st.integers(1, 3)), "body": same_width(draw, at)}


def parallel(draw: Draw, at: At) -> Tree:
    branches = [same_width(draw, at) for _ in range(draw(st.integers(1, 3)))]
    return {"kind": "parallel", "merge": choice(draw, "sum", "gate", "mean"), "branches": branches}


def mixture(draw: Draw, at: At) -> Tree:
    router = {
        "kind": "top_k",
        "k": choice(draw, 1, 2),
        "score": choice(draw, "softmax", "sigmoid"),
        "balance": choice(draw, "loss", "bias", "none"),
    }
    experts = choice(
        draw,
        {"count": 3, "body": channel(draw, at)},
        [channel(draw, at) for _ in range(2)],
        {"count": 2, "body": same_width(draw, replace(at, deep=0))},
    )
    return {
        "kind": "mixture",
        "experts": experts,
        "router": router,
        **choice(draw, {}, {"shared": {"kind": "mlp", "ratio": 1}}),
    }


def partition(draw: Draw, at: At) -> Tree:
    inside = leaf(draw, at)  # a partition inside would have to divide the groups
    if at.axes == "grid":
        how = choice(
            draw, {"within": ["row"]}, {"scheme": {"kind": "windows", "size": 2, "shift": choice(draw, 0, 1)}},
            {"scheme": {"kind": "strided", "size": [2, 4]}}, {"scheme": {"kind": "windows", "size": 3, "pad": True}},
        )  # fmt: skip
        if draw(st.booleans()) and "within" not in how:
            inside = {"kind": "attention", "heads": 1, "position": "relative_bias_table"}
        return {
            "kind": "partition",
            **how,
            "body": inside if "within" not in how else leaf(draw, replace(at, axes="line")),
        }
    return {
        "kind": "partition",
        "scheme": {"kind": choice(draw, "chunks", "strided"), "size": choice(draw, 2, 4)},
        "body": leaf(draw, at),
    }


def route(draw: Draw, at: At) -> Tree:
    if at.axes == "grid":
        return residual(draw, at)
    return {"kind": "route", "take": {"kind": "expert_choice", "capacity": 0.5}, "body": channel(draw, at)}


# --- breaking ---------------------------------------------------------------------------------------------------------


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all values of a tree."""
    items: Any = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


ODD: list[Any] = [None, True, -1, 0, 0.5, 1e30, 2**62, float("inf"), float("nan"), [], {}, [[]], [None], {"": ""}]
ODD += ["", "width", "a.b.c", "1 / 0", "9 ** 99", "?", "layer", "absent", "learned_position", "tokens", "x" * 300]
ODD += [{"kind": "mlp"}, {"kind": []}, {"choose": [1, 2]}, {"each": [1]}]


@st.composite
def broken(draw: Draw, tree: Tree) -> Tree:
    """The tree with one to three changes that a hand or a merge might make."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(tree))
        path = draw(st.sampled_from(found)) if found else ()
        if not path:
            break
        holder: Any = tree
        for key in path[:-1]:
            holder = holder[key]
        key = path[-1]
        other = draw(st.sampled_from(found))
        match draw(st.sampled_from(["drop", "misspell", "odd", "swap", "name", "wrap"])):
            case "drop":
                del holder[key]
            case "misspell" if isinstance(key, str):
                place = draw(st.integers(0, len(key)))
                holder[key[:place] + draw(st.sampled_from("xo_. ")) + key[place + 1 :]] = holder.pop(key)
            case "odd":
                holder[key] = copy.deepcopy(draw(st.sampled_from(ODD)))
            case "swap":
                far: Any = tree
                for step in other:
                    far = far[step]
                holder[key] = copy.deepcopy(far)
            case "name" if isinstance(holder[key], str):
                holder[key] += draw(st.sampled_from(["s", ".x", ".0", " ", "+1"]))
            case _:
                holder[key] = [holder[key]] if draw(st.booleans()) else {"kind": holder[key]}
    return tree
