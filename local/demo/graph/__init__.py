"""What Microsoft 365 is used for, part by part: each from the enqueueing call to the stored or delivered result."""

from __future__ import annotations

from local.demo.graph import identity, mail, notifications, receiving, subscriptions, sync, teams
from local.demo.report import Report
from local.demo.world import World

#: In the order that they are played; each module has `play(world, report)`, and one number of its own.
PARTS = (identity, teams, mail, notifications, receiving, subscriptions, sync)


def play(world: World, report: Report) -> None:
    """Play all parts, one after the other."""
    for part in PARTS:
        part.play(world, report)
