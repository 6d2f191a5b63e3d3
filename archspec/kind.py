"""What a kind is: a schema, a type rule and its documentation in one small class.

A kind says which *roles* it can fill; a parent types the role of its slot and never names concrete children. Schema,
JSON Schema, reference page, default search range and property tests are all derived from the class.

Annotations are not postponed here and in `archspec.kinds`: pydantic would evaluate their text anew for every kind.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from archspec.registry import Registry
from archspec.streams import Stream

if TYPE_CHECKING:
    from archspec.graph import Node
    from archspec.place import Place

LARGEST = 2**26
"""The largest width of anything."""
Width = Annotated[int, Field(gt=0, le=LARGEST)]
Count = Annotated[int, Field(ge=0, le=2**31)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Real = Annotated[float, Field(allow_inf_nan=False)]
Activation = Literal[
    "relu", "gelu", "gelu_tanh", "quick_gelu", "silu", "sigmoid", "tanh", "relu_squared", "softplus", "identity"
]  # fmt: skip


@dataclass(frozen=True)
class Slot:
    """Marks a field that takes a node.

    Args:
        roles: roles that fit; a body fits every slot whose roles include ``body``.
        stream: the name of a stream may stand here instead.
        many: the field is a list of nodes.
        named: the field is a mapping from names to nodes.
    """

    roles: tuple[str, ...]
    stream: bool = False
    many: bool = False
    named: bool = False


@dataclass(frozen=True)
class Free:
    """Marks a field that does not change what is computed per step or what it costs: rates, initialisation."""


@dataclass(frozen=True)
class Moves:
    """Marks a number that may move while the model trains: shapes and parameters are the same for all of its values."""


class Matrix(NamedTuple):
    """A weight matrix that a kind owns: its role's name is the key under which it is declared."""

    inputs: int
    outputs: int
    bias: bool = False
    init: str = "in"  # "in": an ordinary matrix; "out": one that writes into the residual stream


class Kept(NamedTuple):
    """What decoding keeps of one sequence.

    Attributes:
        numbers: for each token, or for the whole sequence.
        per: ``token`` grows with the sequence, ``sequence`` does not.
        window: tokens kept at most.
    """

    numbers: int
    per: Literal["token", "sequence"] = "token"
    window: int | None = None


REGISTRY = Registry()


class Kind(BaseModel):
    """A node of a graph, its fields filled and checked."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, arbitrary_types_allowed=True, protected_namespaces=(),
        defer_build=True,  # a file uses few of the kinds
    )  # fmt: skip

    name_: ClassVar[str]
    roles: ClassVar[tuple[str, ...]] = ("body",)
    arity: ClassVar[tuple[int, int]] = (1, 1)  # fewest and most inputs
    slots: ClassVar[dict[str, Slot]] = {}
    plain: ClassVar[tuple[str, ...]] = ()  # fields that are no slots
    free: ClassVar[frozenset[str]] = frozenset()
    moves: ClassVar[frozenset[str]] = frozenset()
    family: ClassVar[str] = ""
    example: ClassVar[str] = ""
    exempt: ClassVar[dict[str, str]] = {}  # property of the suite -> why it does not hold
    pointwise: ClassVar[bool] = False  # a token's output depends on that token's features alone
    apart: ClassVar[bool] = True  # what becomes of a sample does not depend on the others of its batch
    incremental: ClassVar[bool] = False  # along a causal axis it gives the same token by token, from what it keeps
    among: ClassVar[bool] = False  # it does so also for tokens that were chosen, in each sequence other ones
    carries: ClassVar[bool] = False  # the types of its outputs already tell what they know, as those of its bodies do
    rare: ClassVar[tuple[str, ...]] = ()  # fields that canonical forms and hashes leave out where they are as usual
    own: ClassVar[bool] = False  # of shared weights, its parameters are each user's own
    wraps: ClassVar[bool] = False  # as a default, wraps what stands in the slot instead of filling an empty one

    def __init_subclass__(cls, kind: str | None = None, role: str | tuple[str, ...] | None = None, **options: Any):
        super().__init_subclass__(**options)
        if role is not None:
            cls.roles = (role,) if isinstance(role, str) else role
        if kind is not None:
            cls.name_ = kind
            cls.family = cls.__module__.rsplit(".", 1)[-1]
            known = REGISTRY.get(kind)
            if known is not None and known.__qualname__ != cls.__qualname__:
                raise ValueError(f"two kinds are called {kind!r}: {known.__module__} and {cls.__module__}")
            REGISTRY[kind] = cls

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        cls.slots = {
            name: mark for name, field in cls.model_fields.items() for mark in field.metadata if isinstance(mark, Slot)
        }
        cls.plain = tuple(name for name in cls.model_fields if name not in cls.slots)
        cls.free, cls.moves = (
            frozenset(
                name for name, field in cls.model_fields.items() if any(isinstance(m, mark) for m in field.metadata)
            )
            for mark in (Free, Moves)
        )

    def output(self, x: Stream) -> Stream:
        """The output of a kind of one input and no slots."""
        raise NotImplementedError(type(self).__name__)

    def matrices(self, x: Stream) -> dict[str, Matrix]:
        """The weight matrices, by role; each may be of another kind than a plain one."""
        return {}

    def infer(self, at: "Place") -> Stream | dict[str, Stream]:
        """The types of the outputs; the main one, or all by port name with ``""`` for the main one.

        Kinds with slots elaborate them here, through ``at``.
        """
        x = at.one()
        at.own(self.matrices(x))
        return self.output(x)

    def keeps(self, x: Stream) -> tuple[Kept, ...]:
        """What decoding keeps of each sequence; nothing where the input is not causal or the memory another stream."""
        return ()

    def kept(self, node: "Node") -> tuple[Kept, ...]:
        """What decoding keeps, for kinds whose slots have a say in it; without what bodies keep themselves."""
        return self.keeps(node.types[0])

    def settle(self, node: "Node") -> dict[str, Any]:
        """Fields that may be said in several ways, as they came out."""
        return {}

    def written(self, node: "Node", writer: Any) -> dict[str, Any]:
        """Its slots in the canonical form, where a slot is written as it was read."""
        result: dict[str, Any] = {}
        for key, body in node.bodies.items():
            field, _, item = key.partition(".")
            if field not in self.slots:
                continue
            written = writer.slot(body, f"{node.name}_{field}")
            if not item:
                result[field] = written
            elif self.slots[field].many:
                result.setdefault(field, []).append(written)
            elif self.slots[field].named:
                result.setdefault(field, {})[item] = written
        return result


class Weighted(Kind):
    """A kind that owns weight matrices.

    ``linear`` replaces what all of its matrices are, ``linears`` single ones by their role; ``biases`` says which roles
    have a bias, where that is not as the kind's other fields say.
    """

    linear: Annotated[Any, Slot(("linear",))] = Field(None, description="kind of its weight matrices")
    linears: Annotated[Any, Slot(("linear",), named=True)] = Field(
        default_factory=dict, description="kind of single weight matrices, by role"
    )
    biases: dict[str, bool] = Field(default_factory=dict, description="whether single matrices have a bias, by role")


def lookup(name: object) -> type[Kind] | None:
    """The kind of that name, or None."""
    return REGISTRY.get(name) if isinstance(name, str) else None


def kinds_of(*roles: str) -> list[str]:
    """Names of the kinds that fit one of the roles, sorted."""
    return sorted(name for name, kind in REGISTRY.items() if set(kind.roles) & set(roles))
