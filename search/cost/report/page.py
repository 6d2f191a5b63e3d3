"""A breakdown as one page of HTML that needs nothing beside itself."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from search.cost.breakdown import Breakdown
from search.cost.interval import COVERAGE
from search.cost.report.drawing import bars, legend, roofline, waterfall
from search.cost.report.text import WHAT, at, between, by_operator, by_row, duration, joules, runs, short, totals
from search.cost.report.text import ran as told_run
from search.cost.setting import PHASES, Phase
from search.cost.training_run import TrainingRun
from search.memory import shown
from search.page import document, figures, section


def page(name: str, found: Sequence[Breakdown], phase: Phase, *, run: TrainingRun | None = None) -> str:
    """The page of a spec.

    Args:
        found: its breakdown on each device; drawings are of the first.
        phase: whose parts are drawn.
    """
    main = found[0]
    one = main.passes[phase]
    silent = sum(part.share for part in one.operators if not part.flops)
    parts = list(runs(main, phase))
    if len(one.rows) <= 40:
        parts = [(part.name, [part]) for part in one.rows]
    waterfall_rows = ((label, sum(part.seconds for part in rows), rows[0].verdict) for label, rows in parts)
    sections = [
        f"<h1>{escape(name)}</h1><p>{WHAT[phase].capitalize()}{escape(at(main, phase))}, "
        f"on {escape(main.profile.title)}</p>{_figures(main)}",
        section("Latency by block", f"One {WHAT[phase]}: {duration(one.seconds)}, with {COVERAGE:.0%} of cases "
                 f"between {between(one)}.", legend() + waterfall(waterfall_rows, one.constant)),
        section("Roofline", f"Classes of operators that compute; a circle's area is its share of the time. Those that "
                 f"only move bytes, or are views, take {silent:.0%} of it.",
                 roofline(one, main.profile, main.cost.dtype)),
        section("Memory", "What there is in all. Gradients come while saved activations go, so that a peak may lie "
                 "left of the end.",
                 bars(_memory(main), main.profile.memory[-1].size)),
        section("Devices", f"Latencies with the interval of {COVERAGE:.0%} of cases; energy is an estimate.",
                 _devices(found)),
        *([f"<section><h2>Training run</h2><p>{escape(told_run(main, run))}</p></section>"] if run else ()),
        "<details><summary>Tables</summary>" + "".join(
            f"<pre>{escape(chr(10).join(lines))}</pre>"
            for lines in (totals(main), by_row(main, phase), by_operator(one))
        ) + "</details>",
    ]  # fmt: skip
    return document(f"{name}: cost", sections)


def _figures(found: Breakdown) -> str:
    cost, memory = found.cost, found.memory
    active = f"{short(cost.active)} meet a token" if cost.active != cost.parameters else ""
    tiles = [("parameters", short(cost.parameters), active),
             ("FLOP forward", short(cost.forward), f"{short(cost.forward / 2)} MAC")]  # fmt: skip
    tiles += [(phase, duration(one.seconds), between(one)) for phase, one in found.passes.items()]
    tiles += [
        ("peak in inference", shown(memory.inference), f"{shown(memory.weights)} of weights"),
        ("peak in training", shown(memory.training), f"{shown(memory.peak_checkpointed)} checkpointed"),
    ]
    if memory.cache is not None:
        tiles.append(("cache", shown(memory.cache), f"after {found.context:,} tokens"))
    return figures(tiles)


def _memory(found: Breakdown) -> list[tuple[str, list[tuple[str, int]], int]]:
    memory = found.memory
    weights = ("weights", memory.weights)
    trained = [weights, ("optimizer states", memory.optimizer), ("gradients", memory.gradients)]
    rows = [
        ("training", [*trained, ("saved activations", memory.saved)], memory.training),
        ("checkpointed", [*trained, ("saved activations", memory.saved_checkpointed)], memory.peak_checkpointed),
        ("inference", [weights], memory.inference),
    ]
    if memory.cache is not None and memory.decode is not None:
        rows.append(("decoding", [weights, ("cache", memory.cache)], memory.decode))
    return [
        (name, [*parts, ("transient", max(0, peak - sum(size for _, size in parts)))], peak)
        for name, parts, peak in rows
    ]


def _devices(found: Sequence[Breakdown]) -> str:
    rows: list[tuple[str, list[str]]] = []
    for phase in PHASES:
        ones = [one.passes.get(phase) for one in found]
        if any(ones):
            rows.append(
                (phase, [f"{duration(one.seconds)}<small>{between(one)}</small>" if one else "–" for one in ones])
            )
            rows.append((f"{found[0].unit}s/s", [short(one.throughput(phase) or 0) for one in found]))
            rows.append(("energy", [joules(one.energy) if one else "–" for one in ones]))
    fits = [one.fits for one in found if one.fits]
    serving = "serving" if found[0].context is not None else "inference"
    if len(fits) == len(found):
        rows.append(("memory", [shown(one.memory) for one in fits]))
        for what, of in (("training", [one.training for one in fits]), (serving, [one.serving for one in fits])):
            rows.append((f"batch, {what}", [f"{fit.most:,}" if fit.most else f"– <small>needs {shown(fit.missing)} more"
                                            "</small>" for fit in of]))  # fmt: skip
    head = "".join(f"<th>{escape(one.profile.title)}</th>" for one in found)
    body = "".join(f"<tr><td>{escape(name)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
                   for name, cells in rows)  # fmt: skip
    return f"<table><tr><th></th>{head}</tr>{body}</table>"
