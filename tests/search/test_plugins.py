"""Kinds of a user: an objective and a data set from a file, and what is wrong with such files."""

import textwrap

import pytest

from archspec.errors import SpecError
from search import plugins, report
from search.runner import run
from search.study import load

PLUGIN = """
    from typing import Literal

    from search.data.digits import Digits, DigitsSet
    from search.objectives import Objective

    class Width(Objective):
        kind: Literal["mine/width"] = "mine/width"
        times: int = 1

        @property
        def direction(self):
            return "maximize"

        def before(self, candidate):
            return float(self.times * candidate.spec.graph.nodes[0].output.width)

    class Inverted(Digits):
        kind: Literal["mine/inverted"] = "mine/inverted"

        def open(self, interface):
            data = DigitsSet(interface, self.validation)
            data._images = 1 - data._images
            return data
"""


def test_a_file_adds_an_objective_a_constraint_and_data(study_file, tmp_path):
    (tmp_path / "mine.py").write_text(textwrap.dedent(PLUGIN))
    plugins.load([tmp_path / "mine.py"])
    plugins.load([tmp_path / "mine.py"])
    study = load(
        study_file(
            data="mine/inverted",
            objectives="[validation_loss, {kind: mine/width, times: 2}]",
            constraints="[{kind: mine/width, at_most: 12}]",
        )
    )
    run(study, out=tmp_path / "run", quiet=True)
    found = report.read(tmp_path / "run")
    assert [objective["name"] for objective in found["objectives"]] == ["validation_loss", "mine/width (times 2)"]
    assert {row["values"]["mine/width (times 2)"] for row in found["all"]} <= {16.0, 24.0}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no Python file"),
        ("x = 1 / 0", "ZeroDivisionError"),
        ("import nothing_of_this_name", "ModuleNotFoundError"),
        (
            "from typing import Literal\nfrom search.objectives import Objective\n"
            "class Mine(Objective):\n    kind: Literal['flops'] = 'flops'\n",
            "is called 'flops', as is",
        ),
    ],
)
def test_a_plugin_that_cannot_be_used_is_refused(tmp_path, text, said):
    path = tmp_path / "broken.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SpecError, match=said):
        plugins.load([path])
