"""One model trained by several processes that ``torchrun`` starts: each has a share of its numbers and of the batch.

Nothing here is imported where a process is alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.distributed.group import Group

SAID = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # by torchrun, to each process


@contextmanager
def joined() -> Iterator[Group | None]:
    """The processes that ``torchrun`` started along with this one; None where it did not, or started but one."""
    if not all(name in os.environ for name in SAID) or os.environ["WORLD_SIZE"] == "1":
        yield None
        return
    from search.distributed.group import Group

    with Group.join() as group:
        yield group
