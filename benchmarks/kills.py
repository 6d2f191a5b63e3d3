"""A study that is killed again and again, with all its processes at once and at random moments, and goes on each time.

    python -m benchmarks.kills                 # 30 kills on SQLite, 30 on a PostgreSQL server of its own
    python -m benchmarks.kills --kills 5 --only sqlite

After each kill, and at the end, it counts what must be zero: finished evaluations that are gone or changed, weights
that were trained a second time, keys with two finished records, trials that still run. A server is not killed: that
what it took survives its own death is its affair.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from benchmarks import servers
from benchmarks.timing import report
from search import storages
from search.storage import Record, candidate
from search.study import load

ROOT = Path(__file__).parents[1]
SPACE = """
archspace: 1
name: small
interface: {kind: image_classification, image: [8, 8, 1], classes: 10}
dims: {width: {range: [8, 128], step: 4}}
graph:
  - {kind: patch_embedding, size: 4, width: width}
  - kind: transformer_layer
    norm: {choose: [layer_norm, rms_norm]}
    mixer: {kind: attention, heads: {choose: [1, 2, 4]}}
    channel: {kind: mlp, hidden: {choose: [1, 2, 3, 4, 6]} , activation: {choose: [gelu, relu, silu]}}
  - {kind: pool, how: mean}
  - classifier
"""
STUDY = """
archstudy: 1
name: {name}
space: space.yaml
data: digits
train: {{steps: {steps}, batch: 8, validation_batches: 1}}
objectives: [validation_loss, parameters]
sampler: random
trials: {trials}
workers: {workers}
storage: {storage!r}
"""
RUN = """
import sys
from pathlib import Path
from search.runner import run
from search.study import load
run(load(sys.argv[1]), out=Path(sys.argv[2]), quiet=True)
"""


def kills(
    folder: Path, storage: str, *, times: int, seed: int = 0, workers: int = 2, steps: int = 60, longest: float = 8.0
) -> dict[str, Any]:
    """Kills a study `times` times, lets it end, and counts what was lost.

    Args:
        longest: seconds that it runs at most before it is killed, beside what a start takes; half of that at least.
    """
    draw = random.Random(seed)
    out = folder / "run"
    (folder / "space.yaml").write_text(textwrap.dedent(SPACE))
    file = _write(folder, storage, trials=100_000, workers=workers, steps=steps)
    started = _seconds_to_start(file, out)
    known: dict[int, FrozenTrial] = {}
    trained: dict[Path, int] = {}
    lost = changed = again = 0
    for _ in range(times):
        process = _start(file, out)
        time.sleep(draw.uniform(started / 2, started + longest))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        now = _finished(file, out)
        lost += sum(number not in now for number in known)
        changed += sum(now[n].values != trial.values for n, trial in known.items() if n in now)
        known |= now
        again += _trained_again(out, trained)
    ended = len(known)
    running = sum(trial.state == TrialState.RUNNING for trial in _trials(file, out).values())
    file = _write(folder, storage, trials=_spent(file, out) + running + 2, workers=workers, steps=steps)
    assert _start(file, out).wait() == 0, "the study does not go on"
    now = _finished(file, out)
    keys = Counter(candidate(trial)["key"] for trial in now.values())
    return {
        "storage": storage.partition(":")[0],
        "kills": times,
        "finished": len(now),
        "of them before the last kill": ended,
        "lost": lost + sum(number not in now for number in known),
        "changed": changed + sum(now[n].values != trial.values for n, trial in known.items() if n in now),
        "trained again": again + _trained_again(out, trained),
        "in two records": sum(count - 1 for count in keys.values()),
        "left running": sum(trial.state == TrialState.RUNNING for trial in _trials(file, out).values()),
        "results without a record": _unrecorded(out, now),
        "consistent": _consistent(storage, out, _trials(file, out)),
    }


def _write(folder: Path, storage: str, **lines: Any) -> Path:
    file = folder / "study.yaml"
    file.write_text(STUDY.format(name=f"kills-{folder.name}", storage=storage, **lines))
    return file


def _start(file: Path, out: Path) -> subprocess.Popen[bytes]:
    """A study with all its processes in a group of their own."""
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "ARCHSPEC_CACHE": "off"}
    command = [sys.executable, "-c", RUN, str(file), str(out)]
    return subprocess.Popen(command, start_new_session=True, env=environment)


def _seconds_to_start(file: Path, out: Path) -> float:
    """How long it takes until a first trial has ended; the study is killed then."""
    process, began = _start(file, out), time.monotonic()
    while not list(out.glob("trials/*/result.json")):
        assert process.poll() is None, "the study does not start"
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return time.monotonic() - began


def _of_record(file: Path, out: Path, look: Callable[[Record], Any]) -> Any:
    study = load(file)
    directions = [objective.direction for objective in study.objectives]
    with closing(Record(study.storage, study.name, directions, out)) as record:
        return look(record)


def _trials(file: Path, out: Path) -> dict[int, FrozenTrial]:
    found: dict[int, FrozenTrial] = _of_record(file, out, lambda record: {t.number: t for t in record.trials()})
    return found


def _spent(file: Path, out: Path) -> int:
    return sum(not (t.state == TrialState.FAIL and t.user_attrs.get("again")) for t in _trials(file, out).values())


def _finished(file: Path, out: Path) -> dict[int, FrozenTrial]:
    return {n: trial for n, trial in _trials(file, out).items() if trial.state == TrialState.COMPLETE}


def _trained_again(out: Path, known: dict[Path, int]) -> int:
    """Weights of finished trainings that were written anew."""
    found = 0
    for result in out.glob("trials/*/result.json"):
        weights = result.with_name("weights.safetensors")
        moment = weights.stat().st_mtime_ns
        found += known.setdefault(weights, moment) != moment
        known[weights] = moment
    return found


def _unrecorded(out: Path, finished: dict[int, FrozenTrial]) -> int:
    """Evaluations that had ended on the disk, of which the record does not know or says otherwise."""
    values = {candidate(trial)["hash"][:16]: trial.values for trial in finished.values()}
    wrong = 0
    for path in out.glob("trials/*/result.json"):
        result = json.loads(path.read_text())
        if "values" in result:
            wrong += values.get(path.parent.name) != list(result["values"].values())
    return wrong


def _consistent(storage: str, out: Path, trials: dict[int, FrozenTrial]) -> bool:
    """Whether the database finds itself whole, and numbers trials without a gap."""
    whole = list(trials) == list(range(len(trials)))
    if storage == "sqlite":
        with closing(sqlite3.connect(out / storages.DATABASE)) as connection:
            whole = whole and connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    return whole


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=["sqlite", "journal", "postgresql", "mysql"])
    chosen = parser.parse_args()
    rows = []
    for name in [chosen.only] if chosen.only else ["sqlite", "postgresql"]:
        server = {"postgresql": servers.postgresql, "mysql": servers.mysql}.get(name)
        with server() if server else nullcontext(name) as url, tempfile.TemporaryDirectory() as folder:
            rows.append(kills(Path(folder), url, times=chosen.kills, seed=chosen.seed))
            print(rows[-1], flush=True)
    report("kills", rows, ("optuna", "SQLAlchemy"))


if __name__ == "__main__":
    main()
