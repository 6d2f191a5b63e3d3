"""A model of categorical variables as a Python program of its own: tables, and choices of the nearest match.

Friedman, Wettig and Chen 2023, "Learning Transformer Programs", arXiv 2306.01128.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from torch import fx

from archspec.errors import Problem, SpecError
from archspec.graph import Graph, Node
from compiler.build import attribute

HEAD = '''"""Written from the weights of {name}: program(tokens) gives the number of each token's largest output."""


def nearest(sought, keys, here):
    """The place of the nearest key that is sought, the earlier of two, one's own last; of any, where none is."""
    def worth(there):
        distance = there - here
        far = abs(distance) + (0.5 if distance > 0 else 0) if distance else 2 * len(keys) + 1
        return keys[there] != sought, far
    return min(range(len(keys)), key=worth)


def program(tokens):
    places = range(len(tokens))
'''


def program(model: fx.GraphModule) -> str:
    """Source that computes what the model does once all choices are made, for a sequence of real tokens.

    Errors:
        SpecError: a node that is none of a program.
    """
    writer = _Writer(model)
    graph: Graph = model.spec.graph  # type: ignore[union-attr, assignment]
    env = {(name, ""): ["tokens"] for name in graph.inputs}
    (ref,) = graph.outputs.values()
    writer.graph(graph, env, "")
    (result,) = env[ref.node, ref.port]
    lines = [*writer.lines, f"return {result}"]
    return HEAD.format(name=model.spec.name) + "".join(f"    {line}\n" for line in lines)  # type: ignore[union-attr]


class _Writer:
    """Names of variables by stream; each is a list with a number for each token."""

    def __init__(self, model: Any) -> None:
        self.model, self.count = model, 0
        self.lines: list[str] = []

    def new(self, what: str) -> str:
        self.count += 1
        return f"{what}_{self.count}"

    def graph(self, graph: Graph, env: dict[tuple[str, str], list[str]], path: str) -> None:
        """Writes the nodes of a graph and files what they give."""
        for node in graph.nodes:
            given = [env[ref.node, ref.port] for ref in node.inputs]
            env[node.name, ""] = self.node(node, given, path + attribute(node.name))

    def node(self, node: Node, given: list[list[str]], path: str) -> list[str]:
        """The variables that a node gives."""
        kind: Any = node.kind
        if kind.name_ == "one_hot":
            return given[0]
        if kind.name_ == "one_hot_position":
            return ["places"]
        if kind.name_ == "combine" and kind.how == "concat":
            return [name for names in given for name in names]
        if kind.name_ in ("repeat", "sequence"):
            for slot, body in node.bodies.items():
                inner = path + "." + slot.removeprefix("rounds.")
                lone = body.single if slot == "body" else None
                if lone is not None:
                    given = [self.node(lone, given, inner)]
                    continue
                env = {(name, ""): names for name, names in zip(body.inputs, given, strict=False)}
                self.graph(body, env, inner + ".")
                ref = next(iter(body.outputs.values()))
                given = [env[ref.node, ref.port]]
            return given[0]
        write = getattr(self, kind.name_, None) if kind.name_ in WRITTEN else None
        if write is None:
            cause, hint = (
                f"{kind.name_} is no part of a program",
                "variables, their attention and tables, and one project",
            )
            raise SpecError(Problem(cause, hint, node.path, node.raw.mark))
        found: list[str] = write(self.model.get_submodule(path), given[0])
        return found

    def categorical_attention(self, module: Any, names: list[str]) -> list[str]:
        read = module.read
        out = []
        for head, sought in enumerate(read.predicate.argmax(-1).tolist()):
            query, key, value = (names[number] for number in read.gates[:, head].argmax(-1).tolist())
            table, name = self.new("sought"), self.new("head")
            self.lines += [
                f"{table} = {sought}",
                f"{name} = [{value}[nearest({table}[{query}[i]], {key}, i)] for i in places]",
            ]
            out.append(name)
        return out

    def categorical_mlp(self, module: Any, names: list[str]) -> list[str]:
        table, out = module.table, []
        for number in range(table.gates.shape[0]):
            chosen = table.gates[number].argmax(-1).tolist()
            cases = list(product(range(table.values), repeat=len(chosen)))
            hot = torch.eye(table.values, device=table.up.device)[torch.tensor(cases)].flatten(1)
            given = hot[:, None].expand(-1, table.gates.shape[0], -1)
            result = dict(zip(cases, table.scores(given)[:, number].argmax(-1).tolist(), strict=True))
            rule, name = self.new("rule"), self.new("table")
            read = ", ".join(f"{names[one]}[i]" for one in chosen)
            self.lines += [f"{rule} = {result}", f"{name} = [{rule}[{read},] for i in places]"]
            out.append(name)
        return out

    def project(self, module: Any, names: list[str]) -> list[str]:
        """The number of the largest output, a sum of one number for each variable."""
        linear = module.linear
        weights = linear.weight.unflatten(1, (len(names), -1)).permute(1, 2, 0).tolist()
        bias = [0.0] * linear.weight.shape[0] if linear.bias is None else linear.bias.tolist()
        out, name = self.new("weights"), self.new("largest")
        terms = " + ".join(["bias[o]", *(f"{out}[{n}][{variable}[i]][o]" for n, variable in enumerate(names))])
        self.lines += [
            f"{out} = {weights}",
            f"bias = {bias}",
            f"{name} = [max(range({len(bias)}), key=lambda o, i=i: {terms}) for i in places]",
        ]
        return [name]


WRITTEN = ("categorical_attention", "categorical_mlp", "project")
