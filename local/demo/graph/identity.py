"""Part 1: who the product is to Microsoft 365."""

from __future__ import annotations

from local.demo import steps
from local.demo.report import Report
from local.demo.world import World

STEP = 1


def play(world: World, report: Report) -> None:
    """The service account signs in; everything after it needs that."""
    steps.sign_in(world, report, STEP)
