"""Reading YAML: values as YAML 1.2 has them, the place of each, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archspec.errors import Mark, SpecError
from archspec.source import MAX_DEPTH, Map, Seq, below, parse, read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-3", -3),
        ("0x1F", 31),
        ("0o17", 15),
        ("017", 17),  # octal in YAML 1.1
        ("5e5", 500_000.0),  # text in YAML 1.1
        ("1e-5", 1e-5),
        (".5", 0.5),
        ("1_000", "1_000"),  # a number in YAML 1.1
        ("1:30", "1:30"),  # ninety in YAML 1.1
        ("on", "on"),  # true in YAML 1.1
        ("yes", "yes"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        (".inf", float("inf")),
        ("'5'", "5"),
        ('"true"', "true"),
        ("2020-01-01", "2020-01-01"),
        ("!!str 5", "5"),
        ("8 * width / 3", "8 * width / 3"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = parse(f"x: {text}\n")["x"]
    assert found == value
    assert type(found) is type(value)


def test_a_key_is_always_text() -> None:
    assert list(parse("on: 1\n3: 2\ntrue: 3\nnull: 4\n")) == ["on", "3", "true", "null"]


def test_every_value_knows_its_place() -> None:
    tree = parse("a: 1\nb:\n  - x\n  - {c: 2}\n", "file.yaml")
    assert tree.where("a") == Mark("file.yaml", 1, 4)
    assert tree.key_marks["b"] == Mark("file.yaml", 2, 1)
    listed = tree["b"]
    assert listed.where(0) == Mark("file.yaml", 3, 5)
    assert listed[1].where("c") == Mark("file.yaml", 4, 9)
    assert listed[1].key_marks["c"] == Mark("file.yaml", 4, 6)
    assert (listed.path, listed[1].path) == ("b", "b[1]")
    assert (tree.where("nothing"), listed.where(9), listed.where("")) == (tree.mark, listed.mark, listed.mark)


def test_copies_keep_places() -> None:
    tree = parse("a: {b: 1, c: 2}\n")["a"]
    copy = Map(tree)
    assert (copy.mark, copy.path, copy.where("c")) == (tree.mark, "a", tree.where("c"))
    moved = tree.move("c", "d")
    assert (dict(moved), moved.where("c")) == ({"c": 2}, tree.where("c"))
    assert "c" in tree


def test_paths() -> None:
    assert below(below(below("", "graph"), 2), "body") == "graph[2].body"


@pytest.mark.parametrize(
    ("text", "cause", "line", "column"),
    [
        ("", "empty", 1, 1),
        ("- a\n", "a list", 1, 1),
        ("a: 1\na: 2\n", "'a' stands twice", 2, 1),
        ("a: [1\n", "not YAML", 2, 1),
        ("a: !!python/tuple [1]\n", "tag !!python/tuple", 1, 4),
        ("a: !mine 1\n", "tag !mine", 1, 4),
        ("a: !!float 1\n", "tag !!float", 1, 4),
        ("a: *b\n", "alias *b", 1, 4),
        ("a: &b [*b]\n", "alias *b", 1, 8),
        ("? {a: b}\n: c\n", "a key must be a word", 1, 3),
        ("a: 1\n---\nb: 1\n", "a second document", 2, 1),
        ("a:\n\tb: 1\n", "not YAML", 2, 1),
    ],
)
def test_refusals_have_a_place(text: str, cause: str, line: int, column: int) -> None:
    with pytest.raises(SpecError) as caught:
        parse(text, "f")
    (problem,) = caught.value.problems
    assert cause in problem.cause
    assert problem.mark == Mark("f", line, column)


def test_all_keys_that_stand_twice_are_told() -> None:
    with pytest.raises(SpecError) as caught:
        parse("a: 1\na: 2\nb: {c: 1, c: 2}\n")
    assert [problem.mark and problem.mark.line for problem in caught.value.problems] == [2, 3]


def test_depth_and_size_are_bounded() -> None:
    deep = MAX_DEPTH - 1
    parse("a: " + "[" * deep + "]" * deep)
    with pytest.raises(SpecError, match="nested deeper"):
        parse("a: " + "[" * (deep + 1) + "]" * (deep + 1))
    with pytest.raises(SpecError, match="once aliases are expanded"):
        parse("a: &a [1, 2, 3]\nb: &b [" + "*a, " * 300 + "]\nc: [" + "*b, " * 300 + "]\n")


def test_an_alias_is_the_value_of_its_anchor() -> None:
    tree = parse("a: &a {x: [1]}\nb: *a\n")
    assert tree["b"] == {"x": [1]}


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "utf16.yaml").write_text("a: 1", encoding="utf-16")
    for name, cause in (
        ("utf16.yaml", "not a text file"),
        ("none.yaml", "no such file"),
        ("", "a folder"),
        ("\0", "no file"),
    ):
        with pytest.raises(SpecError, match=cause):
            read(tmp_path / name)
    (tmp_path / "bom.yaml").write_text("a: 1", encoding="utf-8-sig")
    assert read(tmp_path / "bom.yaml") == {"a": 1}


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Cn")), max_size=8)
TREES: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(WORDS, TREES, min_size=1, max_size=4))
def test_reads_what_another_writer_writes(tree: dict[str, Any]) -> None:
    """JSON is YAML 1.2."""
    assert plain(parse(json.dumps(tree, ensure_ascii=False))) == tree


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse(text)
    except SpecError as error:
        assert all(problem.mark is not None for problem in error.problems)


def plain(value: Any) -> Any:
    if isinstance(value, Map):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, Seq) else value
