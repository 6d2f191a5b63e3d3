"""The command line, called in this process."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from archc.main import app


def invoke(*words: object, code: int = 0) -> Result:
    """What a command prints; it ends with a status."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, (result.output, result.exception)
    return result
