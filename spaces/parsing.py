"""A marked tree with choices in it is read into a tree of choices; everything wrong with the choices is reported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from archspec.errors import Problem, Refused, SpecError, did_you_mean
from archspec.expressions import ExpressionError, evaluate, names
from archspec.source import Map, Seq, below
from spaces.choices import Alternative, Code, Constant, Labels, Node, Product, Rounds, Scalar, leaves, scalars
from spaces.constraints import Constraint, bindings
from spaces.dims import Dims, texts
from spaces.freezing import is_out, settled
from spaces.identity import identity
from spaces.ranges import Range, parse_range
from spaces.rounds import most_rounds
from spaces.syntax import check_fields, is_choice, misspelt

OWN_NAMES = ("blocks", "dims", "parameters")  # mappings whose keys are the user's
MAX_SLOTS = 100_000


class Parser:
    """Reads one space.

    Args:
        blocks: what an inlined block was called, by the identity of its definition.
        frozen: codes of choices that are settled, by the path at which they stand in the file.
    """

    def __init__(self, blocks: dict[int, str], frozen: Mapping[str, Code] | None = None) -> None:
        self.blocks, self.frozen = blocks, frozen or {}
        self.problems: list[Problem] = []
        self.dims = Dims(Map(), {})

    def root(self, tree: Map) -> Product:
        """The whole file; its ``dims`` are kept apart in ``self.dims`` and are not a part.

        Errors:
            SpecError: everything that is wrong with the choices.
        """
        dims = tree.get("dims", Map())
        if isinstance(dims, Map) and is_choice(dims):
            self.refuse(
                tree, "dims", "dims as a whole cannot be a choice", "choose inside dims, and tie them by where:"
            )
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
        template = Map(raw)
        for name in raw:
            node = self.node(raw, name, f"dims.{name}", tuple(other for other in raw if other != name), dim=True)
            if isinstance(node, Product) or any(isinstance(item, (Map, Seq)) for item in leaves(node)):
                self.refuse(raw, name, "a dim is a number", None)
            elif isinstance(node, Constant):
                template[name] = node.value
            else:
                nodes[name] = node
        if self.problems:
            raise SpecError(*self.problems)
        return Dims(template, nodes)

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
        if is_choice(raw):
            try:
                found = self.choice(raw, path, scope, dim=dim)
                return settled(found, self.frozen[path]) if path in self.frozen else found
            except Refused as refused:
                self.refuse(raw, refused.field, refused.cause, refused.hint, path)
                return Constant(None)
        meant = misspelt(raw)
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
        word = check_fields(raw)
        if word == "choose":
            return self.alternative(raw, path, scope)
        of = raw.get("of")
        if of is not None and of not in self.dims.names and of not in scope:
            known = {*self.dims.names, *(name for name in scope if name not in _WORDS)}
            raise Refused("of", f"no dim is called {of!r}", did_you_mean(str(of), known))
        return parse_range(raw, path, symbolic=of is not None and of not in self.dims.names and not dim)

    def alternative(self, raw: Map, path: str, scope: tuple[str, ...]) -> Alternative:
        options = raw["choose"]
        if not isinstance(options, Seq):
            raise Refused("choose", "choose takes a list of options", "choose: [first, second]")
        if not options:
            raise Refused("choose", "an empty list of options", "choose: [first, second]")
        seen: dict[Any, int] = {}
        labels, nodes, marks = Labels(), [], []
        written: list[Scalar] = []
        for position, option in enumerate(options):
            same = seen.setdefault(identity(option), position)
            if same != position:
                shown = option if not isinstance(option, (Map, Seq)) else f"the option {written[same]}"
                self.refuse(options, position, f"{shown} stands twice among the options", None, path)
            written.append(labels.label(option, self.blocks.get(id(option))))
            marks.append(options.where(position))
            nodes.append(self.node(options, position, f"{path}.{written[-1]}", scope))
        result = Alternative(nodes, written, path=path, mark=raw.where("choose"), marks=marks)
        if "default" in raw:
            default = result.position(raw["default"])
            if default is None:
                hint = did_you_mean(str(raw["default"]), [str(label) for label in written])
                raise Refused("default", f"the default {raw['default']!r} is not among the options", hint)
            result.default = default
        return result

    # --- mappings and lists -----------------------------------------------------------------------------------------

    def sequence(self, raw: Seq, path: str, scope: tuple[str, ...]) -> Node:
        nodes = [(position, self.node(raw, position, f"{path}[{position}]", scope)) for position in range(len(raw))]
        if all(_is_same(node, raw[position]) for position, node in nodes):
            return Constant(raw)
        template = Seq(raw)
        out = [key for key, node in nodes if is_out(node, raw[key])]
        if out:
            template = Seq(mark=raw.mark, path=raw.path)
            for key, item in enumerate(raw):
                if key not in out:
                    template.put(item, raw.where(key))
            nodes = list(enumerate(node for key, node in nodes if key not in out))
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
        constraints = (
            [self.constraint(raw, text, path, nodes) for text in self.wheres(raw, path)] if where is not None else []
        )
        if vary == "each":
            return self.rounds(raw, template, nodes, constraints, path)
        if not constraints and all(_is_same(node, template[key]) for key, node in nodes.items()):  # type: ignore[index]
            return Constant(template)
        return self.product(Map(template), list(nodes.items()), constraints, path)

    def product(
        self, template: Map | Seq, nodes: list[tuple[Any, Node]], constraints: list[Constraint], path: str,
        hidden: tuple[str, ...] = (),
    ) -> Product | Constant:  # fmt: skip
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
        if not varying and not constraints:
            return Constant(template)
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
                self.refuse(
                    raw, "where", f"{name} is never a number here", "name fields that are numbers, or dims", path
                )
        return Constraint(
            text, path, raw.where("where"), tuple(sorted(fields)), tuple(sorted(dims)), local=not unbound
        )  # fmt: skip

    # --- rounds -----------------------------------------------------------------------------------------------------

    def check_vary(self, raw: Map, path: str) -> None:
        if raw["vary"] not in ("each", "together"):
            hint = did_you_mean(str(raw["vary"]), ("each", "together"))
            self.refuse(raw, "vary", f"vary is each or together, not {raw['vary']!r}", hint, path)
        elif raw.get("kind") not in ("repeat", "loop"):
            self.refuse(
                raw, "vary", "only the rounds of a repeat or loop vary", "vary: belongs beside kind: repeat", path
            )

    def rounds(
        self, raw: Map, template: Map, nodes: dict[str | int, Node], constraints: list[Constraint], path: str
    ) -> Node:
        if "body" not in nodes or "times" not in nodes:
            missing = "body" if "body" not in nodes else "times"
            self.refuse(raw, "vary", f"vary: each needs {missing}:", "times: 4, and body: with choices in it", path)
            return Constant(None)
        if "overrides" in nodes:
            self.refuse(raw, "overrides", "every round chooses for itself; overrides says it again", None, path)
        body, times = nodes["body"], nodes["times"]
        if body.size == 0:
            if self.frozen:
                return self.product(Map(template), list(nodes.items()), constraints, path)
            if not self.problems:
                self.refuse(
                    raw, "vary", "every round is alike: the body has no choice", "remove vary:, or choose in body", path
                )
            return Constant(None)
        try:
            reads, most = most_rounds(times, self.dims)
            if most * body.size > MAX_SLOTS:
                raise Refused("times", f"{most} rounds of {body.size} choices are more than {MAX_SLOTS:,}")
        except Refused as refused:
            self.refuse(raw, refused.field, refused.cause, refused.hint, path)
            return Constant(None)
        listed = raw["kind"] == "repeat"
        shape = Map(mark=template.mark, path=template.path)
        for key in template:
            name = {"body": "rounds", "times": None}.get(key, key) if listed else key
            if name is not None:
                shape.put(name, template[key], template.key_marks.get(key), template.value_marks.get(key))
        others = [(key, node) for key, node in nodes.items() if key not in ("times", "body")]
        bodies = Rounds(body, times, most, path=below(path, "rounds"), reads=reads, listed=listed)
        return self.product(shape, [*others, ("times", times), ("rounds", bodies)], constraints, path, ("times",))

    def refuse(self, container: Map | Seq, key: Any, cause: str, hint: str | None, path: str | None = None) -> None:
        base = container.path if path is None else path
        self.problems.append(Problem(cause, hint, below(base, key), container.where(key)))


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
