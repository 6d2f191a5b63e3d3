"""Kinds of users: named on the command line, called vendor/kind, refused when they fail or take another's name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TINY = Path(__file__).parents[2] / "examples" / "tiny.yaml"
BLOCK = '''
from archspec.kind import Kind

class Twice(Kind, kind="{name}"):
    """Multiplies the features by a number."""
    factor: float = 2.0

    def output(self, x):
        return x
'''


def archc(*words: object) -> subprocess.CompletedProcess[str]:
    """A process of its own, since a kind once registered stays."""
    command = [sys.executable, "-c", "from archc.main import app; app()", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_plugin_adds_a_kind(tmp_path: Path) -> None:
    plugin, spec = tmp_path / "blocks.py", tmp_path / "spec.yaml"
    plugin.write_text(BLOCK.format(name="mine/twice"))
    spec.write_text(TINY.read_text().replace("- rms_norm", "- {kind: mine/twice, factor: 3}"))
    assert archc("check", spec, "--plugin", plugin).returncode == 0
    without = archc("check", spec)
    assert (without.returncode, "no kind or block is called 'mine/twice'" in without.stderr) == (2, True)
    assert "factor" in archc("kinds", "mine/twice", "--plugin", plugin).stdout
    assert '"kind.mine/twice"' in archc("schema", "spec", "--plugin", plugin).stdout


def test_a_plugin_may_not_take_a_plain_name(tmp_path: Path) -> None:
    plugin = tmp_path / "blocks.py"
    plugin.write_text(BLOCK.format(name="twice"))
    found = archc("check", TINY, "--plugin", plugin)
    assert (found.returncode, "vendor/kind" in found.stderr) == (2, True)


def test_a_plugin_that_fails_is_told_without_a_traceback(tmp_path: Path) -> None:
    plugin = tmp_path / "blocks.py"
    plugin.write_text("import no_such_module\n")
    found = archc("check", TINY, "--plugin", plugin)
    assert (found.returncode, "no_such_module" in found.stderr, "Traceback" in found.stderr) == (2, True, False)
    missing = archc("check", TINY, "--plugin", tmp_path / "nothing.py")
    assert (missing.returncode, "there is no Python file" in missing.stderr) == (2, True)
