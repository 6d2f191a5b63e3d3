import os
from pathlib import Path

import pytest
import torch

from tests.checks import Checks

torch.set_num_threads(1)  # tests run side by side
os.environ["ARCHSPEC_CACHE"] = "off"  # no test depends on what is on disk, but those of what is


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--checks", type=Path, help="keep what came of the checks of systems in this file")


def pytest_configure(config: pytest.Config) -> None:
    if (file := config.getoption("--checks")) is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Checks(file))


def pytest_runtest_setup(item: pytest.Item) -> None:
    item.user_properties += [("system", mark.args[0]) for mark in item.iter_markers("system")]  # goes with the report
