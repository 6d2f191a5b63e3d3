"""Files that extend others, and values that are set by path."""

from __future__ import annotations

from pathlib import Path

import pytest

from archspec.errors import SpecError
from archspec.resolve import merge, resolve
from archspec.source import Map, parse, read
from archspec.spec import load

BASE = """\
archspec: 1
name: base
interface: {kind: causal_lm, vocab: 256, length: 64}
dims: {width: 64}
blocks:
  layer:
    kind: transformer_layer
    mixer: {kind: attention, heads: 4}
    channel: {kind: mlp, ratio: 4}
graph:
  - {kind: token_embedding, width: width}
  - {name: layers, kind: repeat, times: 2, body: layer}
  - layer_norm
  - lm_head
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text(BASE)
    return tmp_path


def written(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    (folder / name).write_text("archspec: 1\nextends: base.yaml\n" + text)
    return folder / name


def test_mappings_merge_and_lists_replace(folder: Path) -> None:
    file = written(folder, "dims: {width: 32, other: 8}\nblocks: {layer: {mixer: {heads: 2}}}\n")
    tree = resolve(read(file))
    assert tree["dims"] == {"width": 32, "other": 8}
    assert tree["blocks"]["layer"]["mixer"] == {"kind": "attention", "heads": 2}
    assert tree["blocks"]["layer"]["channel"] == {"kind": "mlp", "ratio": 4}
    assert "extends" not in tree
    shorter = resolve(read(written(folder, "graph: [layer_norm]\n")))
    assert shorter["graph"] == ["layer_norm"]


def test_a_node_of_another_kind_replaces_the_whole_node() -> None:
    base, over = parse("a: {kind: mlp, ratio: 4}"), parse("a: {kind: glu, hidden: 8}")
    assert merge(base, over)["a"] == {"kind": "glu", "hidden": 8}
    assert merge(base, parse("a: {ratio: 2}"))["a"] == {"kind": "mlp", "ratio": 2}


def test_places_are_those_of_the_file_that_says_it(folder: Path) -> None:
    file = written(folder, "blocks: {layer: {mixer: {heads: 7}}}\n")
    with pytest.raises(SpecError) as caught:
        load(file)
    (problem,) = caught.value.problems
    assert problem.mark is not None
    assert (Path(problem.mark.file).name, problem.mark.line) == ("mine.yaml", 3)
    with pytest.raises(SpecError) as caught:
        load(written(folder, "dims: {width: 30}\n"))
    mark = caught.value.problems[0].mark
    assert mark is not None
    assert Path(mark.file).name == "base.yaml"


def test_a_replaced_block_is_the_parent(folder: Path) -> None:
    text = "blocks: {layer: [parent.layer, {kind: dropout, rate: 0.1}]}\n"
    twice = written(folder, text)
    spec = load(twice)
    body = spec.graph.node("layers").bodies["rounds.0"]
    assert [node.kind.name_ for node in body.nodes][-1] == "dropout"
    again = folder / "again.yaml"
    again.write_text(f"archspec: 1\nextends: mine.yaml\n{text}")
    kinds = [node.kind.name_ for node in load(again).graph.node("layers").bodies["rounds.0"].nodes]
    assert kinds[-1] == "dropout"


def test_set_in_a_file_and_from_outside(folder: Path) -> None:
    file = written(folder, 'set: {"graph.layers.times": 5, "blocks.layer.mixer.heads": 2}\n')
    assert len(load(file).graph.node("layers").bodies) == 5
    assert len(load(file, set={"graph.layers.times": 3}).graph.node("layers").bodies) == 3
    assert load(folder / "base.yaml", set={"graph[1].times": 5, "blocks.layer.mixer.heads": 2}).full == load(file).full


def test_set_leaves_the_tree_that_it_was_given(folder: Path) -> None:
    tree = read(folder / "base.yaml")
    resolve(tree, {"graph.layers.times": 9, "dims.width": 16})
    assert (tree["graph"][1]["times"], tree["dims"]["width"]) == (2, 64)


def test_set_makes_a_node_of_a_word(folder: Path) -> None:
    assert resolve(read(folder / "base.yaml"), {"graph.layer_norm.eps": 0.1})["graph"][2] == {
        "kind": "layer_norm",
        "eps": 0.1,
    }


@pytest.mark.parametrize(
    ("path", "cause", "hint"),
    [
        ("graph.layrs.times", "no item 'layrs' in graph", "did you mean layers?"),
        ("graph.9.times", "no item '9' in graph", "there are"),
        ("dimms.width", "no 'dimms' in the file", "did you mean dims?"),
        ("dims.width.more.yet", "has nothing inside", ""),
    ],
)
def test_a_path_that_leads_nowhere(folder: Path, path: str, cause: str, hint: str) -> None:
    with pytest.raises(SpecError) as caught:
        resolve(read(folder / "base.yaml"), {path: 3})
    (problem,) = caught.value.problems
    assert cause in problem.cause
    assert hint in (problem.hint or "")


def test_the_place_of_an_override_is_that_of_who_gave_it(folder: Path) -> None:
    given = parse("dims.width: 30\n", "options")
    with pytest.raises(SpecError) as caught:
        load(folder / "base.yaml", set={"blocks.layer.mixer.heads": 7})
    assert caught.value.problems
    tree = resolve(read(folder / "base.yaml"), given)
    assert tree["dims"].where("width") == given.where("dims.width")


def test_files_that_extend_each_other(folder: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        (folder / f"{name}.yaml").write_text(f"archspec: 1\nextends: {other}.yaml\n")
    with pytest.raises(SpecError, match="extends itself"):
        load(folder / "a.yaml")
    (folder / "none.yaml").write_text("archspec: 1\nextends: nothing.yaml\n")
    with pytest.raises(SpecError, match="no such file"):
        load(folder / "none.yaml")


def test_a_space_may_extend_a_spec(folder: Path) -> None:
    (folder / "space.yaml").write_text("archspace: 1\nextends: base.yaml\ndims: {width: {choose: [32, 64]}}\n")
    tree = resolve(read(folder / "space.yaml"))
    assert ("archspace" in tree, "archspec" in tree) == (True, False)
    assert isinstance(tree["dims"], Map)
