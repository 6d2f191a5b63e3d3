"""`archc check` of a 12-layer spec as a whole process: CPU time, and that torch is not imported.

python -m benchmarks.check
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.compile import DECODER
from benchmarks.timing import report

CODE = """
import json, resource, sys
sys.argv = ["archc", "check", {file!r}]
from archc.main import app
try:
    app()
except SystemExit as exit:
    assert not exit.code, exit.code
used = resource.getrusage(resource.RUSAGE_SELF)
heavy = [name for name in ("torch", "networkx", "numpy", "rich") if name in sys.modules]
print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, heavy]))
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "decoder.yaml"
        file.write_text(DECODER.format(layers=12))
        runs = []
        for _ in range(9):
            done = subprocess.run(
                [sys.executable, "-c", CODE.format(file=str(file))], capture_output=True, text=True, check=True
            )
            runs.append(json.loads(done.stdout.splitlines()[-1]))
    row = {
        "figure": "archc check, 12 layers",
        "CPU s": statistics.median(run[0] for run in runs),
        "MiB": statistics.median(run[1] for run in runs),
        "heavy imports": ", ".join(runs[0][2]) or "none",
    }
    report("check", [row], ("pydantic", "PyYAML"))


if __name__ == "__main__":
    main()
