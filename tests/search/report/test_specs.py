"""Short forms of specs: what is left out is as usual."""

from pathlib import Path

import pytest

from archspec.source import parse
from archspec.spec import from_tree, load
from search.cost.price import price
from search.report.specs import parts, shortened, yaml_of

EXAMPLES = Path(__file__).parents[3] / "examples"
FILES = sorted([EXAMPLES / "tiny.yaml", EXAMPLES / "seq2seq.yaml", *EXAMPLES.glob("zoo/**/*.yaml")])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_short_form_is_a_spec_of_the_same_hashes(file):
    spec = load(file)
    short = shortened(spec.canonical())
    again = from_tree(parse(yaml_of(short, dense=True), "short"))
    assert (again.full, again.structure) == (spec.full, spec.structure)
    assert len(yaml_of(short)) < 0.95 * len(yaml_of(spec.canonical()))


def test_parts_have_the_names_that_prices_use():
    spec = load(EXAMPLES / "tiny.yaml")
    found = parts(shortened(spec.canonical()))
    assert list(found) == [row.name for row in price(spec, device="l4").rows]
    assert "kind: attention" in found["layers.0"]
