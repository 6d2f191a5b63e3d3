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


def cpu(*words: str) -> tuple[float, str]:
    """CPU seconds of a process, and what it prints."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    printed = subprocess.run([sys.executable, "-c", *words], capture_output=True, text=True, check=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, printed


def test_a_check_of_twelve_layers_takes_a_third_of_a_second() -> None:
    """The bar is 0.35 s of CPU, where importing the libraries alone takes 0.1 s; the least of five of each, in turn."""
    libraries, check = [], []
    for _ in range(5):
        libraries.append(cpu("import pydantic, typer, yaml")[0])
        taken, printed = cpu(RUN, "check", str(EXAMPLES / "zoo" / "language" / "gpt2.yaml"), "--json")
        assert json.loads(printed)["layers"] == 12
        check.append(taken)
    assert min(check) <= 0.35 * max(1.0, min(libraries) / 0.1)
