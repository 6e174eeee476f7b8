"""Databases of tests that forget on a crash lie in memory, where there is room: a test's own one is made from the
template in 20 ms there, on a disk in 100."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEMORY = Path("/dev/shm")
#: Three test processes filled 1.6 GB at most.
ROOM_BYTES = 6 * 2**30


@contextmanager
def in_memory(otherwise: Path) -> Iterator[Path]:
    """A new folder in memory, which goes with the block; `otherwise` where memory is short, or none is offered."""
    if not _has_room():
        yield otherwise
        return
    folder = Path(tempfile.mkdtemp(prefix="fleet-queue-tests-", dir=MEMORY))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _has_room() -> bool:
    if not os.access(MEMORY, os.W_OK):
        return False
    free = re.search(r"^MemAvailable: +(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return free is not None and min(shutil.disk_usage(MEMORY).free, int(free[1]) * 1024) >= ROOM_BYTES
