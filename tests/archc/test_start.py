"""A check answers at once: what it costs as a whole process, and what it does not import."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
RUN = "import sys; from archc.main import app\ntry: app()\nfinally: print(*sorted(sys.modules), file=sys.stderr)"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", RUN, *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "words",
    [
        ("check", str(EXAMPLES / "zoo" / "language" / "gpt2.yaml")),
        ("kinds", "attention"),
        ("schema", "spec"),
        ("diff", *[str(EXAMPLES / "tiny.yaml")] * 2),
        ("check", "no_such_file.yaml"),
    ],
    ids=lambda words: words[0],
)
def test_no_heavy_imports(words: tuple[str, ...]) -> None:
    loaded = set(run(*words).stderr.split())
    assert "archspec" in loaded
    assert not loaded & {"torch", "networkx", "rich", "numpy", "optuna"}


def test_help_of_every_command_has_an_example() -> None:
    listed = re.findall(r"^  (\w+)  ", run("--help").stdout.partition("Commands")[2], re.MULTILINE)
    assert {"check", "import", "generate", "export", "search"} <= set(listed)
    for name in listed:
        text = run(name, "--help").stdout
        assert f"\n      archc {name} " in text, text


def test_a_check_of_twelve_layers_takes_a_third_of_a_second() -> None:
    """The bar is 0.35 s of CPU; the least of three, since others may share the machine's caches."""
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = run("check", str(EXAMPLES / "zoo" / "language" / "gpt2.yaml"), "--json")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert json.loads(found.stdout)["layers"] == 12
    assert min(taken) <= 0.35
