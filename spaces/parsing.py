"""A marked tree with choices in it is read into a tree of choices; everything wrong with the choices is reported."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import Any

from archspec.errors import Mark, Problem, Refused, SpecError, did_you_mean
from archspec.expressions import ExpressionError, Number, evaluate, names
from archspec.source import Map, Seq, below
from spaces.choices import Alternative, Constant, Labels, Node, Product, Rounds, Scalar, scalars
from spaces.constraints import Constraint, bindings, number
from spaces.dims import LIMIT, Dims, texts
from spaces.identity import identity
from spaces.ranges import Range, parse_range

FIELDS = {"choose": ("choose", "bind", "default"), "range": ("range", "step", "log", "of", "bind", "default")}
BINDINGS = ("search", "step", "call")
NEAR = ("choice", "choices", "one_of", "any_of")  # what people write for `choose` and no cutoff would find
OWN_NAMES = ("blocks", "dims", "parameters")  # mappings whose keys are the user's
MAX_ROUNDS = 4096
MAX_SLOTS = 100_000


class Parser:
    """Reads one space.

    Args:
        blocks: what an inlined block was called, by the identity of its definition.
    """

    def __init__(self, blocks: dict[int, str]) -> None:
        self.blocks = blocks
        self.problems: list[Problem] = []
        self.dims = Dims(Map(), {})

    def root(self, tree: Map) -> Product:
        """The whole file; its ``dims`` are kept apart in ``self.dims`` and are not a part.

        Errors:
            SpecError: everything that is wrong with the choices.
        """
        dims = tree.get("dims", Map())
        if isinstance(dims, Map) and ("choose" in dims or "range" in dims):
            self.refuse(tree, "dims", "dims as a whole cannot be a choice", "choose inside dims, and tie them by where:")
        elif isinstance(dims, Map):
            self.dims = self.numbers(dims)
        template, key = Map(mark=tree.mark), "archspace"
        for name in tree:
            template.put("archspec" if name == key else name, tree[name], tree.key_marks.get(name), tree.where(name))
        root = self.mapping(template, "", scope=("width_in",))
        if self.problems:
            raise SpecError(*self.problems)
        if isinstance(root, Constant):
            return Product(root.value, [])
        assert isinstance(root, Product)
        return root

    def numbers(self, raw: Map) -> Dims:
        nodes: dict[str, Node] = {}
        for name in raw:
            node = self.node(raw, name, f"dims.{name}", tuple(other for other in raw if other != name), dim=True)
            if isinstance(node, Product) or any(isinstance(item, (Map, Seq)) for item in _leaves(node)):
                self.refuse(raw, name, "a dim is a number", None)
            elif not isinstance(node, Constant):
                nodes[name] = node
        if self.problems:
            raise SpecError(*self.problems)
        return Dims(raw, nodes)

    def node(
        self, container: Map | Seq, key: Any, path: str, scope: tuple[str, ...], *, dim: bool = False
    ) -> Node:  # fmt: skip
        """Reads the value at ``container[key]``.

        Args:
            scope: names beside dims that an expression may read here, for ``of``.
        """
        raw = container[key]
        if isinstance(raw, Seq):
            return self.sequence(raw, path, scope)
        if not isinstance(raw, Map):
            return Constant(raw)
        if "choose" in raw or "range" in raw:
            try:
                return self.choice(raw, path, scope, dim=dim)
            except Refused as refused:
                self.refuse(raw, refused.field, refused.cause, refused.hint, path)
                return Constant(None)
        meant = _misspelt(raw)
        if meant and key not in OWN_NAMES:
            self.refuse(raw, meant[0], f"no choice is written {meant[0]!r}", f"did you mean {meant[1]}?", path)
            return Constant(None)
        own = tuple(raw) if key not in OWN_NAMES else ()
        parameters = raw.get("parameters")
        if isinstance(parameters, Map):
            own += tuple(parameters)
        return self.mapping(raw, path, scope + own, named=key in OWN_NAMES)

    # --- choices ----------------------------------------------------------------------------------------------------

    def choice(self, raw: Map, path: str, scope: tuple[str, ...], *, dim: bool) -> Node:
        word = "choose" if "choose" in raw else "range"
        for key in raw:
            if key not in FIELDS[word]:
                hint = did_you_mean(key, FIELDS[word])
                if key == "kind" or word == "choose" and key not in FIELDS["range"]:
                    hint = hint or "fields belong into the options"
                raise Refused(key, f"{word} has no field {key!r}", hint)
        bind = raw.get("bind", "search")
        if bind not in BINDINGS:
            raise Refused("bind", f"no time of choice is called {bind!r}", did_you_mean(str(bind), BINDINGS))
        if bind != "search":
            raise Refused("bind", f"bind: {bind} is not implemented yet", "bind: search, or leave it out")
        if word == "choose":
            return self.alternative(raw, path, scope)
        of = raw.get("of")
        if of is not None and of not in self.dims.names and of not in scope:
            known = {*self.dims.names, *(name for name in scope if name not in _WORDS)}
            raise Refused("of", f"no dim is called {of!r}", did_you_mean(str(of), known))
        return parse_range(raw, path, symbolic=of not in self.dims.names and not dim)

    def alternative(self, raw: Map, path: str, scope: tuple[str, ...]) -> Alternative:
        options = raw["choose"]
        if not isinstance(options, Seq):
            raise Refused("choose", "choose takes a list of options", "choose: [first, second]")
        if not options:
            raise Refused("choose", "an empty list of options", "choose: [first, second]")
        seen: dict[Any, int] = {}
        labels, nodes, marks = Labels(), [], []
        written: list[Scalar] = []
        for number_, option in enumerate(options):
            same = seen.setdefault(identity(option), number_)
            if same != number_:
                shown = option if not isinstance(option, (Map, Seq)) else f"the option {written[same]}"
                self.refuse(options, number_, f"{shown} stands twice among the options", None, path)
            written.append(labels.label(option, self.blocks.get(id(option))))
            marks.append(options.where(number_))
            nodes.append(self.node(options, number_, f"{path}.{written[-1]}", scope))
        result = Alternative(nodes, written, path=path, mark=raw.where("choose"), marks=marks)
        if "default" in raw:
            position = result.position(raw["default"])
            if position is None:
                hint = did_you_mean(str(raw["default"]), [str(label) for label in written])
                raise Refused("default", f"the default {raw['default']!r} is not among the options", hint)
            result.default = position
        return result

    # --- mappings and lists -----------------------------------------------------------------------------------------

    def sequence(self, raw: Seq, path: str, scope: tuple[str, ...]) -> Node:
        nodes = [(number_, self.node(raw, number_, f"{path}[{number_}]", scope)) for number_ in range(len(raw))]
        if all(_is_same(node, raw[number_]) for number_, node in nodes):
            return Constant(raw)
        template = Seq(raw)
        return self.product(template, nodes, [], path)

    def mapping(self, raw: Map, path: str, scope: tuple[str, ...], *, named: bool = False) -> Node:
        vary, where = (None, None) if named else (raw.get("vary"), raw.get("where"))
        if vary is not None:
            self.check_vary(raw, path)
        template = raw if vary is None and where is None else raw.move(*(k for k in raw if k not in ("vary", "where")))
        nodes: dict[str | int, Node] = {}
        for key in template:
            if not (path == "" and key == "dims"):
                nodes[key] = self.node(template, key, below(path, key), scope)
        constraints = [self.constraint(raw, text, path, nodes) for text in self.wheres(raw, path)] if where is not None else []
        if vary == "each":
            return self.rounds(raw, template, nodes, constraints, path)
        if not constraints and all(_is_same(node, template[key]) for key, node in nodes.items()):  # type: ignore[index]
            return Constant(template)
        return self.product(Map(template), list(nodes.items()), constraints, path)

    def product(
        self, template: Map | Seq, nodes: list[tuple[Any, Node]], constraints: list[Constraint], path: str,
        hidden: tuple[str, ...] = (),
    ) -> Product:  # fmt: skip
        varying = []
        fixed: dict[str, Any] = {}
        wanted = {name for one in constraints for name in one.fields}
        for key, node in nodes:
            if isinstance(node, Constant):
                if key not in hidden:
                    template[key] = node.value
                if key in wanted:
                    fixed[key] = node.value
            else:
                varying.append((key, node))
        return Product(template, varying, constraints, hidden=hidden, fixed=fixed, path=path)

    def wheres(self, raw: Map, path: str) -> list[str]:
        """The constraints of a mapping that are expressions."""
        given = raw["where"] if isinstance(raw["where"], Seq) else [raw["where"]]
        good = []
        for text in given:
            try:
                if not isinstance(text, str):
                    raise ExpressionError(f"a constraint is an expression, not {text!r}")
                evaluate(text, _ANY)
            except ExpressionError as error:
                if not isinstance(text, str) or not names(text) or "not allowed" in str(error):
                    self.refuse(raw, "where", str(error), "where: width % heads == 0", path)
                    continue
            good.append(text)
        return good

    def constraint(self, raw: Map, text: str, path: str, nodes: dict[str | int, Node]) -> Constraint:
        written = {}
        for key, node in nodes.items():
            found = [node.value] if isinstance(node, Constant) and isinstance(node.value, str) else texts(node)
            if path:  # the keys of the file are no fields
                written[str(key)] = found
        fields, dims, unbound = bindings(names(text), written, self.dims.names)
        for name in fields:
            if not any(isinstance(item, (int, float, str, Range)) for item in scalars(nodes[name])):
                self.refuse(raw, "where", f"{name} is never a number here", "name fields that are numbers, or dims", path)
        return Constraint(
            text, path, raw.where("where"), tuple(sorted(fields)), tuple(sorted(dims)), local=not unbound
        )  # fmt: skip

    # --- rounds -----------------------------------------------------------------------------------------------------

    def check_vary(self, raw: Map, path: str) -> None:
        if raw["vary"] not in ("each", "together"):
            hint = did_you_mean(str(raw["vary"]), ("each", "together"))
            self.refuse(raw, "vary", f"vary is each or together, not {raw['vary']!r}", hint, path)
        elif raw.get("kind") not in ("repeat", "loop"):
            self.refuse(raw, "vary", "only the rounds of a repeat or loop vary", "vary: belongs beside kind: repeat", path)

    def rounds(
        self, raw: Map, template: Map, nodes: dict[str | int, Node], constraints: list[Constraint], path: str
    ) -> Node:
        if "body" not in nodes or "times" not in nodes:
            missing = "body" if "body" not in nodes else "times"
            self.refuse(raw, "vary", f"vary: each needs {missing}:", "times: 4, and body: with choices in it", path)
            return Constant(None)
        body, times = nodes["body"], nodes["times"]
        if body.size == 0:
            if not self.problems:
                self.refuse(raw, "vary", "every round is alike: the body has no choice", "remove vary:, or choose in body", path)
            return Constant(None)
        reads, most = self.most_rounds(raw, times, path)
        if most * body.size > MAX_SLOTS:
            self.refuse(raw, "times", f"{most} rounds of {body.size} choices are more than {MAX_SLOTS:,}", None, path)
            most = 0
        shape = Map(mark=template.mark, path=template.path)
        for key in template:
            if key == "body":
                shape.put("rounds", None, template.key_marks.get(key), template.value_marks.get(key))
            elif key != "times":
                shape.put(key, template[key], template.key_marks.get(key), template.value_marks.get(key))
        listed = [(key, node) for key, node in nodes.items() if key not in ("times", "body")]
        round_node = Rounds(body, times, most, below(path, "rounds"), reads)
        return self.product(shape, [*listed, ("times", times), ("rounds", round_node)], constraints, path, ("times",))

    def most_rounds(self, raw: Map, times: Node, path: str) -> tuple[tuple[str, ...], int]:
        """The dims that decide the number of rounds, and the largest number of rounds."""
        written = [times.value] if isinstance(times, Constant) and isinstance(times.value, str) else texts(times)
        _, dims, unbound = bindings([name for text in written for name in names(text)], {}, self.dims.names)
        if unbound:
            hint = did_you_mean(min(unbound), self.dims.names) or "write a number, a choice, or an expression over dims"
            self.refuse(raw, "times", f"vary: each must know its rounds, and no dim is called {min(unbound)!r}", hint, path)
            return (), 0
        count = self.dims.count(dims)
        if count is None or count > LIMIT:
            self.refuse(raw, "times", f"the number of rounds depends on more than {LIMIT:,} combinations of dims", None, path)
            return (), 0
        most = 0
        for _, values in self.dims.combinations(dims):
            for item in _leaves(times):
                found: Number = -1
                try:
                    ends = Map({"times": item.value(item.high, values) if isinstance(item, Range) else item})
                    found = number("times", ends, values)
                except ExpressionError:
                    pass
                if found != math.floor(found) or found < 0 or isinstance(found, bool):
                    self.refuse(raw, "times", f"{item!r} is no number of rounds", "a whole number", path)
                    return (), 0
                most = max(most, int(found))
        if most > MAX_ROUNDS:
            self.refuse(raw, "times", f"{most} rounds are more than {MAX_ROUNDS:,}", None, path)
            most = 0
        return tuple(sorted(dims)), most

    def refuse(self, container: Map | Seq, key: Any, cause: str, hint: str | None, path: str | None = None) -> None:
        base = container.path if path is None else path
        mark: Mark | None = container.where(key)
        if isinstance(container, Map) and key in container.key_marks and cause.startswith(("no choice", "choose has", "range has")):
            mark = container.key_marks[key]
        self.problems.append(Problem(cause, hint, below(base, key) if key != "" else base, mark))


class _Any(dict[str, int]):
    """Binds every name, to try whether a text is an expression."""

    def __missing__(self, key: str) -> int:
        return 1

    def __contains__(self, key: object) -> bool:
        return True


_ANY = _Any()
_WORDS = frozenset({"kind", "name", "from", "when", "body", "where", "vary"})


def _is_same(node: Node, raw: Any) -> bool:
    return isinstance(node, Constant) and node.value is raw


def _leaves(node: Node) -> Iterable[Any]:
    """Values that may stand at a node, ranges as themselves."""
    if isinstance(node, Constant):
        yield node.value
    elif isinstance(node, Alternative):
        for option in node.options:
            yield from _leaves(option)
    elif isinstance(node, Product):
        yield node.template
    else:
        yield node


def _misspelt(raw: Map) -> tuple[str, str] | None:
    """A key that was meant to be ``choose`` or ``range``, and which."""
    if "kind" in raw:
        return None
    for key, inner in raw.items():
        if isinstance(inner, Seq) and all(other in FIELDS["range"] for other in raw if other != key):
            near = ["choose"] if key in NEAR else difflib.get_close_matches(key, FIELDS, 1, 0.75)
            if near:
                return key, near[0]
    return None
