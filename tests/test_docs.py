"""What the documents show works: Python examples run in order, YAML examples elaborate."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from archspec import spec
from archspec.family import families, family
from archspec.kind import REGISTRY
from archspec.source import parse
from spaces.space import Space

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def examples(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.S | re.M)


@pytest.mark.parametrize("page", [page for page in PAGES if examples(page, "python")], ids=lambda page: page.stem)
def test_python_examples_run(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {"__name__": page.stem}
    known = set(REGISTRY)
    try:
        for example in examples(page, "python"):
            exec(compile(example, str(page), "exec", dont_inherit=True), names)
    finally:
        for kind in REGISTRY.keys() - known:  # what a page defines is gone with it
            del REGISTRY[kind]


YAML = [(page, text) for page in PAGES for text in examples(page, "yaml") if text.startswith("archsp")]


@pytest.mark.parametrize(("page", "text"), YAML, ids=[f"{page.stem}-{n}" for n, (page, _) in enumerate(YAML)])
def test_yaml_examples_are_what_they_say(page: Path, text: str) -> None:
    from archspec.resolve import resolve

    tree = resolve(parse(text, str(ROOT / "examples" / "from_a_page.yaml")))
    if "archspace" in tree:
        assert Space(tree).default().spec.graph.nodes
    else:
        assert spec.from_tree(tree).graph.nodes


def test_the_readme_lists_the_families_and_the_zoo() -> None:
    text = (ROOT / "README.md").read_text()
    rows = re.findall(
        r"^\| (?:dense decoders|mixtures|recurrent, hybrid|encoders|encoder-decoders) \| (.*) \|$", text, re.M
    )
    assert sorted(word for row in rows for word in row.split()) == sorted(
        family(name).model_type for name in families()
    )
    assert f"The {len(families())} language-model families" in text
    assert f"has {len([*(ROOT / 'examples/zoo/language').glob('*.yaml')])} of" in " ".join(text.split())


def test_the_reference_is_made_from_the_code() -> None:
    """``make docs`` writes it anew."""
    from docs import build

    assert build.page() == build.PAGE.read_text()


def test_the_page_of_systems_is_made_of_the_rows_and_their_results() -> None:
    """``make systems`` runs the checks and writes it anew."""
    from docs import systems

    assert systems.page() == systems.PAGE.read_text()


def test_every_system_of_the_zoo_has_a_check_that_holds() -> None:
    import json

    from docs import systems

    checks = json.loads(systems.CHECKS.read_text())
    there = [row["id"] for row in systems.rows() if systems.specs(row["id"])]
    assert {row: systems._state(row, checks) for row in there} == dict.fromkeys(there, "holds")
