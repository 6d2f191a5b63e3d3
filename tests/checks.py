"""What came of the checks of systems: ``pytest tests -m system --checks FILE`` keeps it, for docs/systems.md.

A test is part of a row's check by ``pytest.mark.system("ID")``. The file has, for each row whose tests ran, how many
passed, failed and were skipped, and the hashes of its specs, so that a result of an older spec is known for one.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest


class Checks:
    """Counts outcomes by row while tests run; as a plugin of pytest."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            for name, row in report.user_properties:
                if name == "system":
                    self.counts[str(row)][report.outcome] += 1

    def pytest_sessionfinish(self) -> None:
        from docs.systems import spec_of, specs

        found: dict[str, Any] = json.loads(self.file.read_text()) if self.file.exists() else {}
        for row, counts in self.counts.items():
            hashes = {path.stem: spec_of(path).full for path in specs(row)}
            found[row] = {outcome: counts[outcome] for outcome in ("passed", "failed", "skipped")} | {"specs": hashes}
        self.file.write_text(json.dumps(dict(sorted(found.items())), indent=1) + "\n")
