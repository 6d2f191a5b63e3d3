"""Deaths of all of a study's processes at random moments."""

import warnings
from contextlib import nullcontext

import pytest

from benchmarks import servers
from benchmarks.kills import kills

SERVICES = [pytest.mark.services]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "journal", pytest.param("postgresql", marks=SERVICES)])
def test_a_study_that_is_killed_again_and_again_loses_nothing_and_repeats_nothing(tmp_path, kind):
    try:
        with servers.postgresql() if kind == "postgresql" else nullcontext(kind) as url:
            found = kills(tmp_path, url, times=3, seed=1)
    except servers.Absent as absent:
        warnings.warn(f"not tested with {kind}: {absent}", stacklevel=1)
        pytest.skip(str(absent))
    assert found["finished"] > 2 and found["consistent"]
    for name in ("lost", "changed", "trained again", "in two records", "left running", "results without a record"):
        assert found[name] == 0, name
