"""A breakdown as text: a table of its parts, then the totals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from search.cost.breakdown import Breakdown
from search.cost.interval import COVERAGE
from search.cost.parts import Part, Pass
from search.cost.setting import PHASES, Phase
from search.cost.training_run import TrainingRun
from search.memory import shown

WHAT = {"prefill": "prefill", "decode": "decoded token", "step": "training step"}


def aligned(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Lines of a table whose first columns are flush left, the others flush right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            text.ljust(width) if column < left else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def large(count: float) -> str:
    """A count as people read it: 4.5 G."""
    for unit, scale in (
        ("Y", 1e24),
        ("Z", 1e21),
        ("E", 1e18),
        ("P", 1e15),
        ("T", 1e12),
        ("G", 1e9),
        ("M", 1e6),
        ("k", 1e3),
    ):
        if count >= scale:
            return f"{count / scale:.4g} {unit}"
    return f"{count:.4g} "


def short(count: float) -> str:
    """As `large`, where no unit follows."""
    return large(count).strip()


def duration(seconds: float) -> str:
    """Seconds as people read them."""
    for unit, scale in (("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale * (2 if unit in ("h", "min") else 1):
            return f"{seconds / scale:.3g} {unit}" if seconds / scale < 1000 else f"{seconds / scale:,.0f} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def between(found: Pass) -> str:
    """The interval of a pass."""
    low, high = (duration(found.seconds * factor) for factor in found.interval)
    one, other = low.rpartition(" ")[2], high.rpartition(" ")[2]
    return f"{low.rpartition(' ')[0] if one == other else low} – {high}"


def joules(energy: float | None) -> str:
    """Energy as people read it."""
    if energy is None:
        return "–"
    if energy >= 3.6e9:
        return f"{energy / 3.6e9:.3g} MWh"
    if energy >= 3.6e6:
        return f"{energy / 3.6e6:.3g} kWh"
    return f"{large(energy)}J" if energy >= 1 else f"{energy * 1e3:.3g} mJ"


def text(name: str, found: Breakdown, phase: Phase, *, operators: bool = False, run: TrainingRun | None = None) -> str:
    """The cost of a model.

    Args:
        operators: whether the table has a row for each class of operators instead of each part of the model.
    """
    lines = [f"{name}: {WHAT[phase]}{at(found, phase)}, on {found.profile.title}", ""]
    lines += by_operator(found.passes[phase]) if operators else by_row(found, phase)
    return "\n".join([*lines, "", *totals(found), *([f"training run  {ran(found, run)}"] if run else ())])


def at(found: Breakdown, phase: Phase | None = None) -> str:
    """What a pass is over."""
    cost = found.cost
    length = f", length {' and '.join(map(str, cost.lengths.values()))}" if cost.lengths else ""
    if phase == "decode":
        length = f", context {found.context}"
    return f" of batch {cost.batch}{length}, {cost.dtype}"


def runs(found: Breakdown, phase: Phase) -> Iterable[tuple[str, list[Part]]]:
    """The rows of a pass, where several one after the other are alike together under one name."""
    known = {row.name: row for row in found.cost.rows}

    def alike(part: Part) -> tuple[object, ...]:
        row = known.get(part.name)
        more = (row.output, row.parameters) if row else ()
        return part.name.rpartition(".")[0], part.flops, part.bytes, part.count, *more

    for _, group in groupby(found.passes[phase].rows, key=alike):
        run = list(group)
        yield (run[0].name if len(run) == 1 else f"{run[0].name}–{run[-1].name.rpartition('.')[2]}"), run


def by_row(found: Breakdown, phase: Phase) -> list[str]:
    """A row for each top-level node or round."""
    known = {row.name: row for row in found.cost.rows}
    rows: list[tuple[str, ...]] = [
        ("part", "kind", "output", "parameters", "FLOPs", "bytes", "ms", "share", "bound by")
    ]
    for name, run in runs(found, phase):
        part, of = run[0], len(run)
        row = known.get(part.name)
        rows.append((
            name, part.kind, row.output if row else "", f"{of * row.parameters:,}" if row else "",
            *_figures(part, of, sum(one.seconds for one in run), sum(one.share for one in run)),
        ))  # fmt: skip
    rows += _constant(found.passes[phase], ("a pass", "", "", "", "", ""))
    return aligned(rows, 3)


def by_operator(found: Pass) -> list[str]:
    """A row for each class of operators, the longest first."""
    rows: list[tuple[str, ...]] = [("operator", "kind", "count", "FLOPs", "bytes", "ms", "share", "bound by")]
    rows += [
        (part.name, part.kind, f"{part.count:,}", *_figures(part, 1, part.seconds, part.share))
        for part in found.operators
    ]
    rows += _constant(found, ("a pass", "", "", "", ""))
    return aligned(rows, 2)


def _figures(part: Part, of: int, seconds: float, share: float) -> tuple[str, ...]:
    flops = f"{large(of * part.flops)}" if part.flops else "–"
    moved = shown(of * part.bytes) if part.bytes else "–"
    return flops, moved, f"{1e3 * seconds:.4g}", f"{share:.1%}", part.verdict


def _constant(found: Pass, before: tuple[str, ...]) -> list[tuple[str, ...]]:
    if not found.constant:
        return []
    return [(*before, f"{1e3 * found.constant:.4g}", f"{found.constant / found.seconds:.1%}", "overhead")]


def totals(found: Breakdown) -> list[str]:
    """What the whole model costs, in all phases."""
    cost, memory = found.cost, found.memory
    active = f", {cost.active:,} active" if cost.active != cost.parameters else ""
    step = found.passes.get("step")
    kinds = {"forward": cost.forward} | ({"backward": step.backward} if step else {})
    flops = ", ".join(f"{short(count)} {kind}" for kind, count in kinds.items())
    macs = ", ".join(f"{short(count / 2)} {kind}" for kind, count in kinds.items())
    transient = f", {shown(memory.transient)} of it transient" if memory.transient else ""
    loss = f", {shown(memory.loss)} at the loss" if memory.loss else ""
    lines = [
        f"parameters    {cost.parameters:,}{active}",
        f"FLOPs         {flops}; {short(found.optimizer)} pointwise in the optimizer's step",
        f"MACs          {macs}",
        "",
        *phases(found),
        "",
        f"memory        {shown(memory.weights)} weights, {shown(memory.gradients)} gradients, "
        f"{shown(memory.optimizer)} optimizer states, {shown(memory.saved)} saved activations",
        f"at most       {shown(memory.inference)} in inference; {shown(memory.training)} in training{transient}{loss}",
        f"checkpointed  {shown(memory.peak_checkpointed)} in training, for {large(found.again)}FLOP more a step",
    ]
    if memory.cache is not None and memory.decode is not None:
        kept = [f"{shown(memory.cache_per_token)} a token"] if memory.cache_per_token else []
        kept += [f"{shown(memory.cache_per_sequence)} a sequence"] if memory.cache_per_sequence else []
        lines += [
            f"cache         {' and '.join(kept) or 'nothing'}; {shown(memory.cache)} after a context of "
            f"{found.context:,}, with {shown(memory.decode)} in all",
        ]
    lines += fitting(found)
    return [*lines, *_sources(found)]


def phases(found: Breakdown) -> list[str]:
    """A line for each phase."""
    rows = [("", "latency", f"{COVERAGE:.0%} of cases", f"{found.unit}s/s", "bytes", "FLOP/byte", "energy")]
    for phase in PHASES:
        one = found.passes.get(phase)
        if one is not None:
            rows.append((
                phase, duration(one.seconds), between(one), short(found.throughput(phase) or 0), shown(one.bytes),
                f"{one.intensity:.3g}", ("~ " if one.energy is not None else "") + joules(one.energy),
            ))  # fmt: skip
    lines = aligned([(row[0].ljust(12), *row[1:]) for row in rows], 1)
    return [*lines, *(f"{phase.ljust(12)}  none: {cause}" for phase, cause in found.absent.items())]


def fitting(found: Breakdown) -> list[str]:
    """What fits into the device's memory."""
    fits = found.fits
    if fits is None:
        return []
    serving = "serving" if found.context is not None else "inference"
    words = []
    for what, fit in (("training", fits.training), (serving, fits.serving)):
        words.append(f"{what} at batch {fit.most:,}" if fit.most else f"no {what}: needs {shown(fit.missing)} more")
    if fits.context and not fits.context.missing:
        words.append(f"a context of {fits.context.most:,} at batch {found.cost.batch}")
    return [f"fits          {shown(fits.memory)}: {'; '.join(words)}"]


def _sources(found: Breakdown) -> list[str]:
    measured = found.profile.measured
    shares: dict[str, float] = {}
    for one in found.passes.values():
        for origin, share in one.origins.items():
            shares[origin] = shares.get(origin, 0.0) + share / len(found.passes)
    told = ", ".join(f"{share:.0%} {origin}" for origin, share in shares.items() if share >= 0.005)
    certain = "intervals from the errors of its calibration" if measured and measured.whole else "intervals assumed"
    lines = [f"latency from  {told}; {certain}; energy is an estimate"]
    unknown = sorted({name for one in found.passes.values() for name in one.unknown})
    return lines + ([f"not known     {', '.join(unknown)}: priced by their bytes"] if unknown else [])


def ran(found: Breakdown, run: TrainingRun) -> str:
    """What a training run costs."""
    how = f"{run.hours:,.4g} h on {run.devices:,} device{'s' * (run.devices > 1)} at {run.mfu:.0%} of the peak"
    return f"{short(run.tokens)} {found.unit}s: {large(run.flops)}FLOP, {how}, ~ {joules(run.energy)}"
