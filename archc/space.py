"""``archc space``: what a space has in it, its members, and spaces made from specs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archc.files import echo_json, overrides, write
from archc.options import Freeze, Json, Plugins, Set
from archspec.errors import Problem, SpecError

if TYPE_CHECKING:
    from spaces.candidate import Candidate
    from spaces.space import Space

LISTED = 10_000  # members that --list prints
PRICED = 20  # members whose parameters are counted


def space(
    file: Annotated[Path, typer.Argument(metavar="SPACE|SPEC", help="A space, or its name in the library; a spec.")],
    vary: Annotated[
        str | None,
        typer.Option(
            "--vary",
            metavar="WORDS",
            help="Of a spec: which fields become choices, as ffn,heads,kv_heads,depth,width,norms,activations,mixers.",
        ),
    ] = None,
    sample: Annotated[int | None, typer.Option("--sample", min=1, help="Draw so many different members.")] = None,
    near: Annotated[
        Path | None,
        typer.Option(
            "--neighbours", metavar="SPEC", help="Members that differ from it in one choice, numbers by a step."
        ),
    ] = None,
    list: Annotated[bool, typer.Option("--list", help="All members of a small space.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR|FILE", help="Write specs; with --vary, the space.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of what is drawn.")] = 0,
    freeze: Freeze = None,
    set: Set = None,
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """Tell what a space has in it, draw or list its members, or make a space from a spec.

    \b
        archc space hw_gpt_s
        archc space hw_gpt_s --freeze dims.width=384 --sample 10 --out members
        archc space examples/tiny.yaml --vary ffn,heads,depth -o space.yaml
    """
    from random import Random

    from archspec.source import read
    from spaces.neighbours import neighbours
    from spaces.space import library_file, load

    if sum((vary is not None, sample is not None, near is not None, list)) > 1:
        raise typer.BadParameter("give one of --vary, --sample, --neighbours and --list")
    if vary is not None:
        _derive(file, vary, overrides(set), out, json)
        return
    tree = read(library_file(file))
    if "archspec" in tree:
        hint = "--vary ffn,heads,depth makes a space of it"
        raise SpecError(Problem("this is a spec, not a space", hint, mark=tree.mark))
    found = load(file, set=overrides(set))
    if freeze:
        found = found.freeze(overrides(freeze, "--freeze"))
    random = Random(seed)
    if sample is not None:
        _members(found, _drawn(found, random, sample), out, json)
    elif near is not None:
        from archspec.resolve import resolve
        from spaces.locating import locate

        start = locate(found, resolve(read(near)))
        members = [one for one in neighbours(start, reach=1) if found.refusal(one) is None]
        _members(found, members, out, json, start)
    elif list:
        count = found.cardinality()
        if count.high is None or count.high > LISTED:
            raise SpecError(Problem(f"{count} members are too many to list", "--freeze some choices, or --sample"))
        _members(found, [one for one in found.members() if found.refusal(one) is None], out, json)
    elif out is not None:
        raise typer.BadParameter("--out takes what --vary, --sample, --neighbours or --list finds")
    else:
        facts = describe(found, random)
        if json:
            echo_json(facts)
        else:
            typer.echo("\n".join(_lines(facts)))


def _derive(file: Path, vary: str, changes: Any, out: Path | None, json: bool) -> None:
    from archspec.readable import readable
    from archspec.resolve import resolve
    from archspec.source import read
    from spaces.deriving import derive

    tree = derive(resolve(read(file), changes), [word.strip() for word in vary.split(",")])
    if out is not None:
        write(out, readable(tree))
    if json:
        echo_json(tree)
    elif out is None:
        typer.echo(readable(tree), nl=False)


def describe(space: Space, random: Any) -> dict[str, Any]:
    """What is told of a space: its size, its choices, what is refused, and the parameters of some members.

    Errors:
        SpecError: no member is legal.
    """
    from search.cost.price import price
    from spaces.survey import Survey

    survey = Survey(space, random)
    members = space.cardinality()
    sizes = sorted(price(space.sample(random).spec).as_dict()["parameters"]["total"] for _ in range(PRICED))
    choices: dict[str, Any] = {}
    for slot in space.slots:
        choices.setdefault(slot.every, {"path": slot.every, **_options(slot.node), "slots": 0})["slots"] += 1
    return {
        "name": space.name,
        "slots": len(space.slots),
        "members": {"at_least": members.low, "at_most": members.high, "text": str(members)},
        "choices": [*choices.values()],
        "tried": survey.refusals.tried,
        "accepted": survey.accepted,
        "refused": [{"count": count, "example": survey.refusals.examples[reason].cause}
                    for reason, count in survey.refusals.reasons.most_common()],
        "never_legal": [f"{problem.path}: {problem.cause}" for problem in survey.never],
        "parameters": {"members": PRICED, "least": sizes[0], "median": sizes[PRICED // 2], "most": sizes[-1]},
    }  # fmt: skip


def _options(node: Any) -> dict[str, Any]:
    from spaces.ranges import Range

    if not isinstance(node, Range):
        return {"options": node.labels, "default": node.labels[node.default]}
    return {"range": [node.low, node.high], "step": node.step, "log": node.log, "of": node.of, "default": node.default}


def _lines(facts: dict[str, Any]) -> list[str]:
    sizes = facts["parameters"]
    lines = [
        f"{facts['name']}: {facts['slots']} choices · {facts['members']['text']} members",
        f"{facts['accepted']:.0%} of {facts['tried']} draws are legal",
        *(f"  {one['count']} refused: {one['example']}" for one in facts["refused"]),
        *(f"  {line}" for line in facts["never_legal"]),
        f"parameters of {sizes['members']} members: {sizes['least']:,} to {sizes['most']:,}, "
        f"median {sizes['median']:,}",
        "",
    ]
    width = max((len(one["path"]) for one in facts["choices"]), default=0)
    for one in facts["choices"]:
        times = f"  ({one['slots']} times)" if one["slots"] > 1 else ""
        lines.append(f"{one['path']:{width}}  {_shown(one)}{times}")
    return lines


def _shown(one: dict[str, Any]) -> str:
    if "options" in one:
        return " | ".join(f"[{_word(label)}]" if label == one["default"] else _word(label) for label in one["options"])
    step = "evenly in the logarithm" if one["log"] else f"in steps of {one['step']}" if one["step"] else "continuous"
    of = f", times {one['of']}" if one["of"] else ""
    return f"{one['range'][0]} to {one['range'][1]}, {step}{of} [{one['default']}]"


def _word(label: Any) -> str:
    from archspec.readable import flow

    return flow(label)


def _drawn(space: Space, random: Any, count: int) -> list[Candidate]:
    """Different members that elaborate, fewer where more are not met."""
    found: dict[str, Candidate] = {}
    for _ in range(20 * count):
        candidate = space.sample(random)
        found.setdefault(candidate.spec.full, candidate)
        if len(found) == count:
            break
    return [*found.values()]


def _members(
    space: Space, members: list[Candidate], out: Path | None, json: bool, start: Candidate | None = None
) -> None:
    """Writes members as specs, or prints what they chose; of neighbours, only what changed."""
    from archspec.readable import readable

    files: list[str | None] = [None] * len(members)
    if out is not None:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SpecError(Problem(f"{out} is no folder: {error.strerror}", "name another with --out")) from None
        digits = len(str(len(members)))
        for number, member in enumerate(members, 1):
            name = f"{space.name}-{number:0{digits}}"
            path = out / f"{name}.yaml"
            write(path, readable({**member.tree, "name": name}))
            files[number - 1] = str(path)
    told = []
    for file, member in zip(files, members, strict=True):
        old = start.values if start is not None else {}
        changed = {path: value for path, value in member.values.items() if path not in old or old[path] != value}
        told.append({"structure": member.spec.structure, "values": changed, **({"file": file} if file else {})})
    if json:
        echo_json(told)
        return
    for one in told:
        values = "  ".join(f"{path}={_word(value)}" for path, value in one["values"].items())  # type: ignore[union-attr]
        typer.echo(f"{one.get('file') or one['structure'][:8]}  {values}")  # type: ignore[index]
    if not told:
        typer.echo("no legal member")
