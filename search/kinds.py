"""Kinds that a study file may name: data sets and objectives, each a class whose fields are what the file may say.

A kind is chosen by ``kind:``; a bare string means a kind with its defaults. Third parties add kinds through the
entry-point groups ``archspec.data`` and ``archspec.objectives`` or in a file that is imported before the study is read.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any, ClassVar, TypeVar, cast, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from archspec.errors import Mark, Problem, SpecError, did_you_mean
from archspec.source import Map, Seq

M = TypeVar("M", bound=BaseModel)
K = TypeVar("K", bound="Kind")


class Fields(BaseModel):
    """A part of a study file: unknown fields and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Kind(Fields):
    """A registered part; a subclass states its names as ``kind: Literal["name"] = "name"``."""

    role: ClassVar[str]
    group: ClassVar[str]  # of entry points
    registered: ClassVar[dict[str, type[Kind]]]

    @classmethod
    def __pydantic_init_subclass__(cls, **arguments: Any) -> None:
        if "registered" in cls.__dict__ or "kind" not in cls.__annotations__:
            return
        for name in get_args(cls.model_fields["kind"].annotation):
            other = cls.registered.setdefault(name, cls)
            if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
                raise SpecError(
                    Problem(
                        f"{cls.__module__}.{cls.__qualname__} is called {name!r}, as is "
                        f"{other.__module__}.{other.__qualname__}",
                        f"name {cls.role} kinds of your own vendor/kind",
                    )
                )
            cls.registered[name] = cls

    @property
    def kind_name(self) -> str:
        """The name under which the file chose it."""
        return str(getattr(self, "kind"))  # noqa: B009 -- each subclass types the field as it needs

    @classmethod
    def kinds(cls: type[K]) -> dict[str, type[K]]:
        """All kinds of a role by name; imports the entry points."""
        for point in entry_points(group=cls.group):
            point.load()
        return cast("dict[str, type[K]]", cls.registered)

    @classmethod
    def read(cls: type[K], value: Any, path: str, mark: Mark | None) -> K:
        """The kind that a file names at a place.

        Errors:
            SpecError: an unknown kind, or all wrong fields of a known one.
        """
        tree = Map({"kind": value}, mark) if isinstance(value, str) else value
        if not isinstance(tree, Map):
            raise SpecError(Problem(f"expected a kind of {cls.role}, found {shown(value)}", None, path, mark))
        name = tree.get("kind")
        if name is None:
            hint = did_you_mean("", cls.kinds())
            raise SpecError(Problem("kind is missing", hint, path, tree.mark))
        if name not in cls.registered and name not in cls.kinds():
            cause = f"there is no {cls.role} called {shown(name)}"
            raise SpecError(Problem(cause, did_you_mean(str(name), cls.registered), f"{path}.kind", tree.where("kind")))
        return fields(cast("type[K]", cls.registered[name]), tree, path)


def fields(model: type[M], tree: Map, path: str = "") -> M:
    """Checks a mapping of a file against a model.

    Errors:
        SpecError: every wrong field, each with its place.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise SpecError(*(_problem(model, tree, path, dict(wrong)) for wrong in error.errors())) from None


def shown(value: Any) -> str:
    """A value as an error message quotes it."""
    if isinstance(value, Map):
        return "a mapping"
    if isinstance(value, Seq):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _problem(model: type[BaseModel], tree: Map, path: str, wrong: dict[str, Any]) -> Problem:
    place, mark = path, tree.mark
    at: Any = tree
    owner: Any = model
    known: type[BaseModel] = model
    name: Any = ""
    for number, part in enumerate(wrong["loc"], start=1):
        if isinstance(part, int) and isinstance(at, Seq):
            place, mark = f"{place}[{part}]", at.where(part)
            name, at = part, at[part]
        elif isinstance(at, Map) and (part in at or number == len(wrong["loc"])):  # others name a form of a union
            name = part
            known = owner if isinstance(owner, type) and issubclass(owner, BaseModel) else known
            place = f"{place}.{part}" if place else str(part)
            mark = at.key_marks.get(str(part), at.mark) if wrong["type"] == "extra_forbidden" else at.where(str(part))
            field = known.model_fields.get(str(part))
            owner = field.annotation if field else None
            at = at.get(str(part))
    context = wrong.get("ctx", {})
    hint = None
    match wrong["type"]:
        case "extra_forbidden":
            cause, hint = f"there is no field {name!r} here", did_you_mean(str(name), known.model_fields)
        case "missing":
            cause = f"{name} is missing"
        case "literal_error":
            cause = f"{name} cannot be {shown(wrong['input'])}"
            hint = f"it is {context['expected']}"
        case "value_error":
            cause = str(context["error"])
        case _:
            said = wrong["msg"].removeprefix("Input should be ")
            cause = f"{name} is {shown(wrong['input'])}; it should be {said}"
    return Problem(cause, hint, place, mark)
