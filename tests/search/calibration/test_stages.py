"""A calibration that shows how far it is."""

from __future__ import annotations

import io

from search.calibration.stages import Stages


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(stream: io.StringIO, *, quiet: bool = False) -> str:
    with Stages(stream=stream, quiet=quiet) as progress:
        for share, stage in ((0.0, "kernels"), (0.2, "kernels"), (0.7, "models"), (1.0, "done")):
            progress(share, stage)
    return stream.getvalue()


def test_lines_elsewhere() -> None:
    assert shown(io.StringIO()) == "  0%  kernels\n 70%  models\n100%  done\n"


def test_a_bar_on_a_terminal() -> None:
    text = shown(Terminal())
    assert "━" in text and "100%" in text and "done" in text and "\x1b" in text


def test_silence() -> None:
    assert shown(io.StringIO(), quiet=True) == shown(Terminal(), quiet=True) == ""
