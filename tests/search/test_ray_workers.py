"""Workers on a real Ray cluster of this machine."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from optuna.trial import TrialState

from archspec.errors import SpecError
from search.runner import run
from search.storage import candidate
from search.study import load
from tests.search.studies import trials

HAS_RAY = importlib.util.find_spec("ray") is not None
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster():
    """The address of a cluster with two processors, started as a user starts one."""
    if not HAS_RAY:
        warnings.warn("not tested with Ray: pip install 'archspec-nas[ray]'", stacklevel=1)
        pytest.skip("Ray is not installed")
    ray = shutil.which("ray", path=str(Path(sys.executable).parent)) or "ray"
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    start = [ray, "start", "--head", "--block", f"--port={port}", "--num-cpus=2", "--include-dashboard=false"]
    process = subprocess.Popen([*start, "--disable-usage-stats"], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    deadline = time.monotonic() + 120
    with socket.socket() as probe:
        while probe.connect_ex(("127.0.0.1", port)):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.5)
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.wait(timeout=60)


@pytest.mark.slow
@pytest.mark.services
def test_a_study_runs_on_a_cluster(study_file, tmp_path, cluster, meeting):
    lines = {"train": "{steps: 1, batch: 4}", "objectives": "[parameters, test/meets]", "workers": "2"}
    study = load(study_file(**lines, trials="6", storage=f"journal:{tmp_path / 'shared.journal'}"))
    run(study, out=tmp_path / "run", plugin_files=[meeting], ray=cluster, quiet=True)
    (tmp_path / "shared.journal").rename(tmp_path / "run" / "study.journal")
    rows = trials(tmp_path / "run")
    assert [row.state for row in rows if not row.user_attrs.get("again")] == [TrialState.COMPLETE] * 6
    assert len({candidate(row)["worker"] for row in rows}) == 2


def test_a_cluster_that_is_not_there_is_told_in_a_line(study_file, tmp_path):
    said = "there is no Ray cluster at 127.0.0.1:1" if HAS_RAY else "needs ray, which is not installed"
    study = load(study_file(storage=f"journal:{tmp_path / 'shared.journal'}"))
    with pytest.raises(SpecError, match=said):
        run(study, out=tmp_path / "run", ray="127.0.0.1:1", quiet=True)


@pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed")
def test_a_file_of_one_machine_is_no_storage_of_a_cluster(study_file, tmp_path):
    with pytest.raises(SpecError, match="storage: sqlite is a file of one machine"):
        run(load(study_file()), out=tmp_path / "run", ray="auto", quiet=True)
