"""Saving and loading: a folder of ``spec.yaml`` (the canonical form) and ``weights.safetensors``.

A model that was imported has its configuration and tokenizer beside them.

Tensors that are one in the model are stored once, under the first of their names; ``ties`` in the file's metadata maps
the other names to it. Tables that follow from the spec are not stored. Files are written beside their place and moved
over it when they are whole, so that a process that dies, or a full disk, leaves the older ones as they were.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, fx, nn

from archspec.canonical import text
from archspec.config_file import CONFIG
from archspec.errors import Problem, SpecError
from archspec.spec import load as load_spec
from compiler.initialise import compute_tables
from compiler.model import compile
from compiler.stored import Damaged, Stored, extent, few, header, write
from compiler.trace import Traced

SPEC, WEIGHTS = "spec.yaml", "weights.safetensors"
BESIDE = (CONFIG, "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
"""Files that go along with a model: of what it was imported, and how its text becomes tokens."""


def save(
    model: fx.GraphModule,
    folder: str | os.PathLike[str],
    *,
    whole: Callable[[Tensor], Tensor] = lambda tensor: tensor,
) -> None:
    """Writes a compiled model into a folder, which is made if it is missing.

    Of an imported model, the configuration and tokenizer of another one that stood there do not stay.

    Args:
        whole: makes all of a tensor of which the model has a share, when it is its turn.

    Errors:
        SpecError: the folder cannot be written, the disk is full, or the model has no weights (the meta device).
    """
    place = Path(folder)
    tensors, ties = unique(model)
    bare = next((name for name, tensor in tensors.items() if tensor.is_meta), None)
    if bare is not None:
        _refuse(f"{bare} has no values: the model is on the meta device", "compile it on a device before saving", place)
    held = {name: (tensor, lambda tensor=tensor: whole(tensor)) for name, tensor in tensors.items()}
    metadata = {"format": "pt", "ties": json.dumps(ties)}
    spec: Any = model.spec
    files: dict[str, Callable[[Path], Any]] = {
        WEIGHTS: lambda path: write(path, held, metadata),
        SPEC: lambda path: path.write_text(text(spec.canonical()), encoding="utf-8"),
    }
    beside: dict[str, bytes] = getattr(model, "beside", {})
    files |= {name: lambda path, data=data: path.write_bytes(data) for name, data in beside.items()}
    write_folder(place, files, without=set(BESIDE) - beside.keys() if beside else ())


def write_folder(place: Path, files: Mapping[str, Callable[[Path], Any]], *, without: Iterable[str] = ()) -> None:
    """Writes files of a folder, which is made if it is missing; none stands in its place before all are whole.

    Args:
        files: what writes each, by its name.
        without: files that are removed, as they would tell of another model.

    Errors:
        SpecError: the folder cannot be written, or the disk is full.
    """
    beside = {name: place / f".{name}.{os.getpid()}" for name in files}
    with ExitStack() as leftovers:
        for folder in (folder for folder in (place, *place.parents) if not os.path.exists(folder)):
            leftovers.callback(_remove, folder)  # stays if there is something in it
        for path in beside.values():
            leftovers.callback(_remove, path)
        try:
            place.mkdir(parents=True, exist_ok=True)
            for path in (place / name for name in (*files, *without) if (place / name).is_dir()):
                _refuse("cannot be written: this is a folder, not a file", "name another folder", path)
            for name, path in beside.items():
                files[name](path)
                _flush(path)
            for name, path in beside.items():
                path.replace(place / name)
            for name in without:
                (place / name).unlink(missing_ok=True)
            _flush(place)
        except OSError as error:
            if os.path.exists(place) and not os.path.isdir(place):
                _refuse("cannot be written: this is a file, not a folder", "name another folder", place)
            _refuse(f"cannot be written: {_reason(error)}", "make room, or name another folder", place)


def load(
    folder: str | os.PathLike[str], *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> fx.GraphModule:
    """Reads a model that `save` wrote.

    Args:
        dtype: of the weights; as they are stored by default.

    Errors:
        SpecError: a file is missing or damaged, or its tensors are not those that the spec describes, each by name.
    """
    place = Path(folder)
    if not os.path.isdir(place):
        _refuse("there is no such folder", "name a folder that compiler.save wrote", place)
    spec = load_spec(place / SPEC)
    model = compile(spec, device="meta")
    groups = _groups(model)
    stored = _read(place / WEIGHTS, model, groups, device)
    owners = [
        (module, name, old) for module in model.modules() for name, old in module._parameters.items() if old is not None
    ]
    for module, name, _ in owners:
        module._parameters[name] = None  # what is left to make are the tables
    compute_tables(model, device)
    made: dict[int, nn.Parameter] = {}
    values = {id(tensor): stored[names[0]] for names, tensor in groups}
    for module, name, old in owners:
        if id(old) not in made:
            value = values[id(old)]
            value = value.to(dtype) if dtype is not None and value.is_floating_point() else value
            made[id(old)] = nn.Parameter(value, requires_grad=old.requires_grad)
        module._parameters[name] = made[id(old)]
    for names, tensor in groups:
        if id(tensor) not in made:
            buffer = model.get_buffer(names[0])
            buffer.copy_(stored[names[0]])
    loaded: Any = model
    loaded.beside = read_beside(place)
    loaded.entries = {name: Traced(loaded, part.graph, name) for name, part in loaded.entries.items()}
    return model


def read_beside(place: Path) -> dict[str, bytes]:
    """Those files of a folder that go along with a model.

    Errors:
        SpecError: one of them cannot be read.
    """
    found = {}
    for path in (place / name for name in BESIDE):
        try:
            found[path.name] = path.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            _refuse(f"cannot be read: {_reason(error)}", "repair it, or take it out of the folder", path)
    return found


def _groups(model: nn.Module) -> list[tuple[list[str], Tensor]]:
    """The tensors that a model stores, each once, with all of its names."""
    found: dict[int, tuple[list[str], Tensor]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        found.setdefault(id(tensor), ([], tensor))[0].append(name)
    return list(found.values())


def unique(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors that a model stores, by the name of each, and what other names they have."""
    groups = _groups(model)
    ties = {name: names[0] for names, _ in groups for name in names[1:]}
    return {names[0]: tensor for names, tensor in groups}, ties


def _read(
    path: Path, model: nn.Module, groups: list[tuple[list[str], Tensor]], device: str | torch.device
) -> dict[str, Tensor]:
    """The stored tensors by the first name that each has in the model; refused unless they are exactly the model's."""
    try:
        held = header(path)[0]  # tells in more words what is wrong
        with safe_open(path, framework="pt", device=str(device)) as file:
            ties = _ties(file.metadata() or {})
            where = {name: name for name in held} | {name: kept for name, kept in ties.items() if kept in held}
            wrong = list(_differences(where, held, groups))
            if wrong:
                raise SpecError(*(Problem(cause, hint, str(path)) for cause, hint in wrong))
            return {own[0]: file.get_tensor(next(where[n] for n in own if n in where)) for own, _ in groups}
    except FileNotFoundError:
        _refuse("there is no such file", "name a folder that compiler.save wrote", path)
    except Damaged as error:
        _refuse(f"cannot be read: {error}", "the file is damaged; save it again", path)
    except OSError as error:
        _refuse(f"cannot be read: {_reason(error)}", "it should be a file that you may read", path)
    except SafetensorError as error:
        _refuse(f"cannot be read: {error}", "the file is damaged; save it again", path)


def _ties(metadata: Mapping[str, str]) -> dict[str, str]:
    """Other names of stored tensors, each with the name under which it is stored."""
    try:
        ties = json.loads(metadata.get("ties", "{}"))
    except (ValueError, RecursionError):
        ties = None
    if not isinstance(ties, dict) or not all(isinstance(name, str) for name in ties.values()):
        raise Damaged("its ties are no names of tensors")
    return ties


def _differences(
    where: dict[str, str], held: dict[str, Stored], groups: list[tuple[list[str], Tensor]]
) -> Iterator[tuple[str, str | None]]:
    """What is missing, too much, of another shape or type, or tied in only one of both: causes and hints."""
    own = {name for names, _ in groups for name in names}
    missing = [names[0] for names, _ in groups if not any(name in where for name in names)]
    extra = sorted(name for name in held if name not in own)
    for word, names in (("has no", missing), ("has besides", extra)):
        if names:
            yield f"the file {word} {few(names)}", "spec.yaml describes another model than the one that was saved"
    for names, tensor in groups:
        kept = list(dict.fromkeys(where[name] for name in names if name in where))
        if len(kept) > 1:
            yield f"{few(names)} are one tensor in the spec and {len(kept)} in the file", None
        for name in kept[:1]:
            numbers = held[name].dtype.is_floating_point and held[name].dtype.itemsize > 1
            if numbers != tensor.is_floating_point():
                kinds = (str(one.dtype).removeprefix("torch.") for one in (held[name], tensor))
                yield "{} is {} in the file and {} in the model".format(names[0], *kinds), None
            if held[name].shape != tuple(tensor.shape):
                yield (
                    f"{names[0]} is {extent(held[name].shape)} in the file and {extent(tensor.shape)} in the spec",
                    None,
                )


def _flush(path: Path) -> None:
    """Has the disk keep a file, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def _refuse(cause: str, hint: str, place: Path) -> NoReturn:
    raise SpecError(Problem(cause, hint, str(place))) from None
