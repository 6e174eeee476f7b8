"""One host at a time runs a timer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from shared.engine.ports import Store


@contextmanager
def turn(store: Store, timer: str, at_most: timedelta) -> Iterator[bool]:
    """True when this host has the turn. Held until the block ends; a host that dies loses it after `at_most`.

    A lease row in place of an advisory lock: no transaction stays open across the timer's outside calls.
    """
    token = store.take_turn(timer, at_most)
    if token is None:
        yield False
        return
    try:
        yield True
    finally:
        store.end_turn(timer, token)
