"""Every test here talks to one running system, and leaves it as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from local.stack import Stack
from tests.acceptance.system import System


@pytest.fixture
def system(stack: Stack) -> Iterator[System]:
    system = System(stack)
    yield system
    system.settle_down()
