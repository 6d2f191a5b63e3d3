"""Studies of the tests, run here or in another process, and what they left."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from optuna.trial import TrialState

from search.storage import Record

ROOT = Path(__file__).parents[2]

# An objective of a file that ends its first trials together: else one worker may have done all before another starts.
MEETS = """
import os, time
from pathlib import Path
from typing import Literal
from search.objectives import Objective

class Meets(Objective):
    kind: Literal["test/meets"] = "test/meets"

    def after(self, trained):
        place, deadline = Path(__file__).with_suffix(""), time.monotonic() + 60
        place.mkdir(exist_ok=True)
        (place / str(os.getpid())).touch()
        while len(list(place.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        return 1.0
"""


def trials(folder):
    record = Record.existing(folder)
    try:
        return record.trials()
    finally:
        record.close()


def found(folder):
    """What was found, in the order in which it was: choices and losses."""
    return [(trial.params, trial.values) for trial in trials(folder) if trial.state == TrialState.COMPLETE]


def go(file, folder, before="", stop=True):
    """Runs a study in another process, after some lines of its own."""
    program = f"""
import os, signal, sys
from pathlib import Path
from search import session, storage
from search.runner import Interrupted, run
from search.study import load
{textwrap.dedent(before)}
if __name__ == "__main__":
    try:
        run(load({str(file)!r}), out=Path({str(folder)!r}))
    except Interrupted as error:
        print(error)
        sys.exit(130)
"""
    script = folder.with_suffix(".py")
    script.write_text(program)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    if not stop:
        return process
    out, err = process.communicate(timeout=120)
    return process.returncode, out + err
