"""Checkpoints of `transformers`: ``config.json`` and safetensors, read into a compiled model and written back.

No number is changed on the way. Pickles are refused. What was read beside the weights and is no architecture, the
configuration and the tokenizer, stays with the model (`compiler.save` writes it too), so that it can be written back.
A model that was not imported, or was changed since, is written if a family can say it (`archspec.recognition`).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, fx

from archspec.blame import name as shown
from archspec.config_file import CONFIG, parse_config, read_config
from archspec.errors import Problem, SpecError
from archspec.family import Imported, family_of
from compiler.correspondence import NAME, WEIGHTS, Correspondence, Outgoing, fill
from compiler.initialise import allocate
from compiler.model import compile
from compiler.moving import settle
from compiler.stored import SAFE, Damaged, Stored, header, write
from compiler.weights import BESIDE, read_beside, write_folder

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
SHARD = 5 * 10**9  # bytes of a file, as transformers has it


def import_checkpoint(
    folder: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    name: str | None = None,
) -> fx.GraphModule:
    """A compiled model with the weights of a `transformers` checkpoint.

    Args:
        dtype: of the weights; that of most of the stored numbers by default.
        name: of the spec; that of the model type by default.

    Errors:
        SpecError: a configuration that cannot be said; a tensor that is missing, extra or misshapen; a damaged file.
    """
    place = Path(folder)
    config = read_config(place / CONFIG)
    imported = family_of(config, str(place / CONFIG)).expand(config, str(place / CONFIG), name)
    checkpoint, beside = Checkpoint(place), read_beside(place)
    model: Any = compile(imported.spec, device="meta")
    allocate(model, device=device, dtype=dtype or checkpoint.dtype())
    try:
        fill(model, imported, checkpoint.readers(), str(place))
    except (Damaged, OSError) as error:  # it was whole when it was opened
        _refuse(place, f"cannot be read: {error}", "it changed while it was read")
    model.beside = beside
    return model  # type: ignore[no-any-return]


def export_checkpoint(model: fx.GraphModule, folder: str | Path) -> list[str]:
    """Writes a model as a checkpoint that ``from_pretrained`` of `transformers` loads; gives the names of its files.

    Numbers that move in training are those at its end.

    Errors:
        SpecError: no family can say the model's spec; the folder cannot be written.
    """
    model = settle(model)
    imported, config = source_of(model)
    shards: list[dict[str, tuple[Tensor, Outgoing]]] = [{}]
    size = 0
    mapping = Correspondence(imported, model)
    for name, make in mapping.exported():
        if mapping.repeats(name):  # tied: a file holds it once
            continue
        blank = make.blank()
        taken = blank.numel() * blank.element_size()
        if size and size + taken > SHARD:
            shards.append({})
            size = 0
        shards[-1][name] = (blank, make)
        size += taken
    files: dict[str, Callable[[Path], Any]] = {}
    index: dict[str, str] = {}
    for number, part in enumerate(shards, 1):
        file = SINGLE if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        index |= dict.fromkeys(part, file)
        files[file] = lambda path, part=part: write(path, part, {"format": "pt"})
    if len(shards) > 1:
        text = json.dumps({"metadata": {}, "weight_map": index}, indent=1)
        files[INDEX] = lambda path: path.write_text(text, "utf-8")
    beside: dict[str, bytes] = {**getattr(model, "beside", {}), CONFIG: config}
    for name, data in beside.items():
        files[name] = lambda path, data=data: path.write_bytes(data)
    write_folder(Path(folder), files, without={SINGLE, INDEX, *BESIDE} - files.keys())
    return sorted(files)


def source_of(model: fx.GraphModule) -> tuple[Imported, bytes]:
    """What a model is in `transformers`, and its ``config.json``: its own if that still describes it, or one found.

    Errors:
        SpecError: no family can say its spec.
    """
    spec: Any = model.spec
    data: bytes | None = getattr(model, "beside", {}).get(CONFIG)
    config = None if data is None else parse_config(data, CONFIG, f"the {CONFIG} beside the model is damaged")
    if config is not None and data is not None:
        imported = family_of(config, CONFIG).expand(config, CONFIG)
        if imported.spec.graph.digest("layout") == spec.graph.digest("layout"):
            return imported, data
    from archspec.recognition import recognise  # few commands look for a family

    found = recognise(spec, config)
    dtype = next((one.dtype for one in model.parameters()), torch.float32)
    found["dtype"] = str(dtype).removeprefix("torch.")
    text = json.dumps(found, indent=2, sort_keys=True, ensure_ascii=False)
    return family_of(found).expand(found), (text + "\n").encode()


class Checkpoint:
    """The tensors of a folder of safetensors files, of one or several shards.

    Attributes:
        tensors: by name, shard by shard.

    Errors:
        SpecError: a file is missing, truncated or damaged, or the weights are a pickle.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tensors: dict[str, Stored] = {}
        if (folder / SINGLE).is_file():
            self.tensors = self._header(SINGLE)
        elif (folder / INDEX).is_file():
            named = self._index()
            for file in sorted(set(named.values())):
                held = self._header(file)
                for name in (name for name, one in named.items() if one == file):
                    if name not in held:
                        cause = f"has no tensor {shown(name, NAME)}, which {INDEX} says it has"
                        _refuse(folder / file, cause, "it belongs to another model; fetch both again")
                    self.tensors[name] = held[name]
        else:
            self._other()

    def dtype(self) -> torch.dtype:
        """The type of most of the numbers."""
        sizes: dict[torch.dtype, int] = {}
        for one in self.tensors.values():
            if one.dtype in WEIGHTS:
                sizes[one.dtype] = sizes.get(one.dtype, 0) + math.prod(one.shape)
        return max(sizes, key=lambda one: sizes[one], default=torch.float32)

    def readers(self) -> dict[str, Callable[[], Stored]]:
        """What gives each tensor, shard by shard."""
        return {name: lambda one=one: one for name, one in self.tensors.items()}  # type: ignore[misc]

    def _header(self, file: str) -> dict[str, Stored]:
        if not os.path.isfile(self.folder / file):
            _refuse(self.folder / file, "this shard is missing", f"{INDEX} lists it; fetch it again")
        try:
            return header(self.folder / file)[0]
        except Damaged as error:
            _refuse(self.folder / file, f"cannot be read: {error}", error.hint)
        except OSError as error:
            _refuse(self.folder / file, f"cannot be read: {error.strerror}", None)

    def _index(self) -> dict[str, str]:
        """The file of each tensor."""
        place = self.folder / INDEX
        try:
            found = json.loads(place.read_text("utf-8"))["weight_map"]
            files = set(found.values())
        except OSError as error:
            _refuse(place, f"cannot be read: {error.strerror}", None)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            _refuse(place, "no index of tensors: weight_map is missing or no mapping", "damaged; fetch it again")
        for file in files:
            if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
                cause = f"{json.dumps(file)} is no file of this folder that could hold tensors"
                _refuse(place, cause, "it may name .safetensors files that stand beside it")
        return dict(found)

    def _other(self) -> NoReturn:
        """Tells what there is instead of weights that can be read."""
        try:
            files = sorted(self.folder.iterdir())
        except OSError:  # there is none, or it may not be listed
            files = []
        pickle = next((file for file in files if file.suffix in PICKLES), None)
        if pickle:
            _refuse(pickle, "a pickle, which can run any code when it is read", SAFE)
        other = next((file for file in files if file.suffix in (".gguf", ".h5", ".msgpack", ".onnx")), None)
        if other:
            _refuse(other, "not safetensors, which is what is read", SAFE)
        hint = f"a checkpoint is {CONFIG} and {SINGLE}, or shards and {INDEX}; without weights, -o spec.yaml"
        _refuse(self.folder, f"has no {SINGLE}", hint)


def _refuse(place: Path, cause: str, hint: str | None) -> NoReturn:
    raise SpecError(Problem(cause, hint, str(place))) from None
