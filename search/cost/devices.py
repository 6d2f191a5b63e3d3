"""Device profiles: what a device can do at best, as data.

A profile is a YAML file beside this one (``search/cost/devices/*.yaml``) or the user's own::

    title: NVIDIA L4
    kind: gpu
    units: 58                                               # cores, multiprocessors: what works side by side
    peak: {float32: 30.3e12, bfloat16: 121e12}              # FLOP/s, dense, one multiply-add is 2
    memory:                                                 # nearest first
      - {name: GDDR6, size: 24e9, bandwidth: 300e9}         # bytes, bytes/s
    overhead: 5e-6                                          # seconds for each operator
    power: {idle: 16, full: 72}                             # watts
    links:                                                  # to other devices or the host
      - {name: PCIe 4.0 x16, bandwidth: 31.5e9, latency: 5e-6}  # bytes/s in one direction, seconds
    sources: ["where each number comes from"]

Peaks are those that torch reaches for without being told: float32 without TF32, float64 on matrix units where there
are such, float16 and bfloat16 on them with float32 accumulation, sparsity off. A cache is listed where a source states
its bandwidth.
"""

from __future__ import annotations

from functools import cached_property
from importlib.resources import files
from math import log
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from archspec import source
from archspec.errors import Mark, Problem, SpecError, did_you_mean
from search.cost.measured import DType, Measured

LOCAL, CUDA = "local", "cuda"  # this computer's CPU, and its GPU
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
BLUR = 2.0  # a working set of a cache's size still lies in it; from one so many times as large nothing is left


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Level(_Data):
    """A memory or a cache: its size in bytes, and the bytes/s, read and written, that it moves."""

    name: str
    size: Positive
    bandwidth: Positive


class Power(_Data):
    """Watts of the idle and of the fully busy device."""

    idle: Positive
    full: Positive


class Link(_Data):
    """A way to other devices or to the host: bytes/s of one device in one direction, and seconds until the first."""

    name: str
    bandwidth: Positive
    latency: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Device(_Data):
    """A device profile.

    ``units`` are the parts that work side by side: cores of a CPU that torch would use, streaming multiprocessors or
    compute units of a GPU, TensorCores of a TPU.
    """

    title: str
    kind: Literal["cpu", "gpu", "tpu"]
    units: Annotated[int, Field(gt=0)]
    peak: dict[DType, Positive]
    memory: tuple[Level, ...]
    overhead: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    power: Power | None = None
    links: tuple[Link, ...] = ()
    sources: tuple[str, ...]
    measured: Measured | None = None

    @model_validator(mode="after")
    def _sensible(self) -> Device:
        if not (self.peak and self.memory and self.sources):
            raise ValueError("peak, memory and sources must not be empty")
        for near, far in zip(self.memory, self.memory[1:], strict=False):
            if near.size > far.size or near.bandwidth < far.bandwidth:
                raise ValueError(
                    f"memory is listed nearest first: {near.name} must be smaller and faster than {far.name}"
                )
        if self.power and self.power.idle >= self.power.full:
            raise ValueError("idle power must be below full power")
        return self

    def bandwidth(self, working_set: float) -> float:
        """Bytes/s of the nearest level that holds so many bytes; of the last one if none does."""
        return self.memory[self.level(working_set)].bandwidth

    def level(self, working_set: float) -> int:
        """Which level that is, counted from the nearest."""
        last = len(self.memory) - 1
        return next((number for number, level in enumerate(self.memory) if working_set <= level.size), last)

    @cached_property
    def working_sets(self) -> tuple[float, ...]:
        """Bytes of weights for which passes are priced; between them a time is interpolated."""
        for kernels in self.measured.kernels.values() if self.measured else ():
            if kernels.reach is not None:
                return kernels.reach.axes["bytes"]
        edges = [level.size for level in self.memory[:-1]]
        return tuple(size for edge in edges for size in (edge, BLUR * edge)) or (self.memory[-1].size,)

    def between(self, resident: float) -> tuple[int, float]:
        """The number of the working set below some bytes, and their share of the way to the next."""
        sets = self.working_sets
        if resident <= sets[0] or len(sets) == 1:
            return 0, 0.0
        high = next((number for number, size in enumerate(sets) if size >= resident), None)
        if high is None:
            return len(sets) - 2, 1.0
        return high - 1, round(log(resident / sets[high - 1]) / log(sets[high] / sets[high - 1]), 6)

    def factor(self, phase: str, work: str) -> float:
        """By which measurements of whole models say that times of a kind of work are multiplied."""
        return self.measured.of(phase).factors.get(work, 1.0) if self.measured else 1.0

    def pass_seconds(self, phase: str, busy: float, host: float) -> float:
        """Seconds of a pass whose operators keep the device busy, and take to be asked for, so long."""
        constant = self.measured.of(phase).constant if self.measured else 0.0
        return constant + (busy + host if self.kind == "cpu" else max(busy, host))

    def peak_flops(self, dtype: str) -> float:
        """FLOP/s of matrix products.

        Errors:
            SpecError: the profile states none for this dtype.
        """
        found = {str(key): value for key, value in self.peak.items()}.get(dtype)
        if found is None:
            raise SpecError(Problem(f"{self.title} states no peak for {dtype}", f"it states {', '.join(self.peak)}"))
        return found


def names() -> list[str]:
    """Names of the profiles that come with the package, and of the devices of this computer."""
    own = (Path(entry.name) for entry in files("search.cost").joinpath("devices").iterdir())
    return [*sorted(path.stem for path in own if path.suffix == ".yaml"), LOCAL, CUDA]


def load(name: str) -> Device:
    """A profile by its name, or by the path of a YAML file; ``local`` is measured once and remembered.

    Errors:
        SpecError: there is no such profile, or the file is wrong.
    """
    if name in (LOCAL, CUDA):
        return _of_this_computer(name)
    if name.endswith((".yaml", ".yml")):
        return from_tree(source.read(name))
    if name.endswith(".json"):
        return _from_json(Path(name))
    if name not in names():
        longer = " or ".join(known for known in names() if name and known.startswith(name))
        hint = f"try {longer}" if longer else did_you_mean(name, names())
        raise SpecError(Problem(f"there is no device {name!r}", hint or "name a YAML or JSON file"))
    file = files("search.cost").joinpath("devices", f"{name}.yaml")
    return from_tree(source.parse(file.read_text(encoding="utf-8"), str(file)))


def _of_this_computer(name: str) -> Device:
    import torch  # which reading a profile does not need

    from search.cost import local

    if name == CUDA and not torch.cuda.is_available():
        raise SpecError(Problem("this computer has no CUDA device that torch can use", "try --device local"))
    return local.load("cpu" if name == LOCAL else name)


def _from_json(file: Path) -> Device:
    try:
        return Device.model_validate_json(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(Problem(f"{file} cannot be read: {error.strerror}")) from None
    except ValidationError as error:
        detail = error.errors()[0]
        where, cause = ".".join(map(str, detail["loc"])), detail["msg"].removeprefix("Value error, ")
        raise SpecError(
            Problem(f"{file} is no device profile: {where} {cause[:1].lower()}{cause[1:]}".strip())
        ) from None


def from_tree(tree: source.Map) -> Device:
    """A profile from its YAML tree.

    Errors:
        SpecError: all that is wrong with it, with the places.
    """
    try:
        return Device.model_validate(tree)
    except ValidationError as error:
        raise SpecError(*(_problem(tree, detail) for detail in error.errors())) from None


def _problem(tree: source.Map, detail: Any) -> Problem:
    keys = [key for key in detail["loc"] if key != "[key]"]
    mark: Mark | None = tree.mark
    place: Any = tree
    for key in keys:
        if not isinstance(place, (source.Map, source.Seq)):
            break
        mark = place.where(key) or mark
        place = place[key] if isinstance(place, source.Seq) or key in place else None
    path = ".".join(map(str, keys))
    if detail["type"] == "extra_forbidden":
        schemas: dict[Any, type[_Data]] = {"power": Power, "memory": Level, "links": Link}
        fields = (Device if len(keys) == 1 else schemas[keys[0]]).model_fields
        return Problem(f"there is no field {keys[-1]}", did_you_mean(str(keys[-1]), fields), path, mark)
    if detail["type"] == "missing":
        return Problem(f"the field {keys[-1]} is missing", None, path, mark)
    cause = detail["msg"].removeprefix("Value error, ")
    return Problem(cause[:1].lower() + cause[1:], None, path, mark)
