"""Checkpoints of `transformers`: ``config.json`` and safetensors, read into a compiled model and written back.

No number is changed on the way. Pickles are refused. What was read beside the weights and is no architecture, the
configuration and the tokenizer, stays with the model (`compiler.save` writes it too), so that it can be written back.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, fx

from archspec.errors import Problem, SpecError
from archspec.family import Imported, family_of, read_config
from compiler.correspondence import Correspondence, fill
from compiler.initialise import allocate
from compiler.model import compile
from compiler.weights import BESIDE, CONFIG, write_folder

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "consolidated.00.pth")
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
    checkpoint = Checkpoint(place)
    model: Any = compile(imported.spec, device="meta")
    allocate(model, device=device, dtype=dtype or checkpoint.dtype())
    fill(model, imported, checkpoint.readers(), str(place))
    model.beside = {name: (place / name).read_bytes() for name in BESIDE if (place / name).is_file()}
    return model  # type: ignore[no-any-return]


def export_checkpoint(model: fx.GraphModule, folder: str | Path) -> None:
    """Writes a model as a checkpoint that ``from_pretrained`` of `transformers` loads.

    Errors:
        SpecError: the model was not imported, or is no longer what its configuration describes; the folder cannot be
            written.
    """
    imported = source_of(model)
    tensors: list[dict[str, Callable[[], Tensor]]] = [{}]
    size, taken = 0, 0
    mapping = Correspondence(imported, model)
    for name, make in mapping.exported():
        if mapping.repeats(name):  # tied: a file holds it once
            continue
        value = make()
        taken = value.numel() * value.element_size()
        if size and size + taken > SHARD:
            tensors.append({})
            size = 0
        tensors[-1][name] = make
        size += taken
    files: dict[str, Callable[[Path], Any]] = {}
    index: dict[str, str] = {}
    for number, part in enumerate(tensors, 1):
        file = SINGLE if len(tensors) == 1 else f"model-{number:05}-of-{len(tensors):05}.safetensors"
        index |= dict.fromkeys(part, file)
        files[file] = lambda path, part=part: save_file({n: make() for n, make in part.items()}, path, {"format": "pt"})
    if len(tensors) > 1:
        text = json.dumps({"metadata": {}, "weight_map": index}, indent=1)
        files[INDEX] = lambda path: path.write_text(text, "utf-8")
    beside: dict[str, bytes] = getattr(model, "beside", {})
    for name, data in beside.items():
        files[name] = lambda path, data=data: path.write_bytes(data)
    write_folder(Path(folder), files)


def source_of(model: fx.GraphModule) -> Imported:
    """What a model was imported as.

    Errors:
        SpecError: it has no configuration, or is no longer what that describes.
    """
    spec: Any = model.spec
    data: bytes | None = getattr(model, "beside", {}).get(CONFIG)
    if data is None:
        hint = "a model that archc import made has one; put the config.json that describes it into its folder"
        raise SpecError(Problem(f"{spec.name} has no {CONFIG}, so nobody knows which family it is of", hint))
    config = json.loads(data)
    imported = family_of(config, CONFIG).expand(config, CONFIG)
    if imported.spec.graph.digest("layout") != spec.graph.digest("layout"):
        hint = f"archc diff shows where; change {CONFIG} in its folder alike, or keep it as it is"
        cause = f"{spec.name} is no longer the {imported.family.model_type} that its {CONFIG} describes"
        raise SpecError(Problem(cause, hint))
    return imported


class Checkpoint:
    """The tensors of a folder of safetensors files, of one or several shards.

    Errors:
        SpecError: a file is missing, truncated or damaged, or the weights are a pickle.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, str] = {}
        if (folder / INDEX).is_file():
            try:
                self.files = dict(json.loads((folder / INDEX).read_text("utf-8"))["weight_map"])
            except (ValueError, KeyError, TypeError):
                _refuse(folder / INDEX, "no index of tensors: weight_map is missing or no mapping", None)
        elif (folder / SINGLE).is_file():
            self.files = dict.fromkeys(self._names(SINGLE), SINGLE)
        else:
            pickled = next((name for name in PICKLES if (folder / name).exists()), None)
            if pickled:
                hint = "save it as safetensors: model.save_pretrained(folder)"
                _refuse(folder / pickled, "a pickle, which can run any code when it is read", hint)
            _refuse(folder, f"has no {SINGLE}", f"a checkpoint is config.json and {SINGLE}, or shards and {INDEX}")
        for file in sorted(set(self.files.values())):
            held = set(self._names(file))
            lost = next((name for name, one in self.files.items() if one == file and name not in held), None)
            if lost is not None:
                _refuse(folder / file, f"has no tensor {lost}, which the index promises", "a shard of another model")

    def _names(self, file: str) -> list[str]:
        with self._open(file) as shard:
            return list(shard.keys())

    def _open(self, file: str) -> Any:
        if "/" in file or not (self.folder / file).is_file():
            _refuse(self.folder / file, "this shard is missing", f"{INDEX} lists it")
        try:
            return safe_open(self.folder / file, framework="pt")
        except (SafetensorError, OSError, ValueError) as error:
            _refuse(self.folder / file, f"cannot be read: {error}", "truncated or damaged; fetch it again")

    def dtype(self) -> torch.dtype:
        """The type of most of the numbers."""
        sizes: dict[torch.dtype, int] = {}
        for file in sorted(set(self.files.values())):
            names = self._names(file)
            with self._open(file) as shard:
                for part in map(shard.get_slice, names):
                    found = _DTYPES.get(part.get_dtype())
                    if found is not None:
                        sizes[found] = sizes.get(found, 0) + math.prod(part.get_shape())
        return max(sizes, key=lambda one: sizes[one], default=torch.float32)

    def readers(self) -> dict[str, Callable[[], Tensor]]:
        """What reads each tensor, shard by shard."""
        names = sorted(self.files, key=lambda name: (self.files[name], name))
        return {name: lambda n=name: self.read(n) for name in names}  # type: ignore[misc]

    def read(self, name: str) -> Tensor:
        """One tensor; its pages of the file are let go with it."""
        with self._open(self.files[name]) as shard:
            found: Tensor = shard.get_tensor(name)
            return found


_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def _refuse(place: Path, cause: str, hint: str | None) -> NoReturn:
    raise SpecError(Problem(cause, hint, str(place))) from None
